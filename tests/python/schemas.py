"""The published JSON Schemas: every frame that crosses the wire here is held to them."""

import json
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

DOCS = Path(__file__).resolve().parents[2] / "docs"


@cache
def validator(direction: str, kind: str) -> Draft202012Validator:
    path = DOCS / "schema" / f"{direction}.{kind}.schema.json"
    assert path.exists(), f"there is no schema of {direction} {kind}"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check(direction: str, frame: dict) -> dict:
    """Returns the frame when it fits the schema of its type, else fails."""
    assert isinstance(frame, dict) and isinstance(frame.get("type"), str), frame
    problems = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator(direction, frame["type"]).iter_errors(frame)
    ]
    assert not problems, f"{frame} does not fit its schema: {problems}"
    return frame
