"""The published documents hold together: schemas and AsyncAPI."""

import json

import yaml
from jsonschema import Draft202012Validator

import schemas


def published() -> dict[str, dict]:
    files = sorted((schemas.DOCS / "schema").glob("*.schema.json"))
    assert files
    return {
        path.name.removesuffix(".schema.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in files
    }


def resolve(document: dict, reference: str):
    """Follows a reference within the document."""
    assert reference.startswith("#/"), reference
    node = document
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def test_schemas_are_valid_and_named():
    for name, schema in published().items():
        Draft202012Validator.check_schema(schema)
        direction, kind = name.split(".")
        assert schema["$id"] == f"urn:stonechat:v1:{direction}:{kind}"
        assert schema["properties"]["type"]["const"] == kind
        assert "type" in schema["required"]


def test_asyncapi_names_every_frame_once_each_way():
    document = yaml.safe_load((schemas.DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert document["asyncapi"].startswith("3.")
    assert document["info"]["title"] and document["info"]["version"]
    [channel] = document["channels"].values()
    assert channel["address"] == "/v1/ws"
    messages = {}
    for name, entry in channel["messages"].items():
        message = resolve(document, entry["$ref"])
        reference = message["payload"]["schema"]["$ref"]
        assert reference == f"./schema/{name}.schema.json"
        schema = json.loads((schemas.DOCS / reference).read_text(encoding="utf-8"))
        assert message["name"] == schema["properties"]["type"]["const"]
        assert message["summary"]
        messages[name] = message
    assert messages.keys() == published().keys()
    # The document is the server's: it receives what clients say and sends what they hear.
    carried = {}
    for operation in document["operations"].values():
        assert resolve(document, operation["channel"]["$ref"]) is channel
        names = [entry["$ref"].rsplit("/", 1)[1] for entry in operation["messages"]]
        for entry in operation["messages"]:
            assert "$ref" in resolve(document, entry["$ref"])
        carried[operation["action"]] = names
    assert sorted(carried["receive"]) == sorted(n for n in messages if n.startswith("client."))
    assert sorted(carried["send"]) == sorted(n for n in messages if n.startswith("server."))
