"""docs/metrics.md and pages of /metrics, read into the same shape."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "metrics.md"
SERIES = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
PARTS_OF_HISTOGRAM = ("_bucket", "_sum", "_count")


class Family(NamedTuple):
    kind: str
    unit: str
    labels: frozenset[str]


def rows(columns: tuple[str, ...]) -> list[list[str]]:
    """Rows of all tables of the page with these columns."""
    found, inside = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif tuple(cells) == columns:
            inside = True
        elif inside and set(line) - set("|-"):
            assert len(cells) == len(columns), f"a row with another number of cells: {line}"
            found.append(cells)
    return found


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented() -> dict[str, Family]:
    families = {}
    for name, kind, unit, labels, meaning in rows(("name", "type", "unit", "labels", "meaning")):
        [name] = code(name)
        assert name not in families, f"{name} is documented twice"
        assert unit and meaning, f"{name} lacks a unit or a meaning"
        families[name] = Family(kind, unit, frozenset(code(labels)))
    assert families
    return families


def documented_labels() -> dict[str, frozenset[str]]:
    return {code(label)[0]: frozenset(code(values)) for label, values in rows(("label", "values"))}


def series_names() -> frozenset[str]:
    """Names a query may use."""
    names = set()
    for name, family in documented().items():
        names |= {name + part for part in PARTS_OF_HISTOGRAM} if family.kind == "histogram" else {name}
    return frozenset(names)


class Exposed:
    """A page of /metrics."""

    def __init__(self, text: str):
        self.text = text
        self.kinds: dict[str, str] = {}
        self.labels: dict[str, dict[str, set[str]]] = {}
        self.values: dict[str, float] = {}
        for line in filter(None, text.splitlines()):
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                assert name not in self.kinds, f"{name} is told twice"
                self.kinds[name] = kind
                self.labels[name] = {}
            elif not line.startswith("#"):
                series = SERIES.match(line)
                assert series, f"not a series: {line}"
                family = self.family(series["name"])
                for label, value in LABEL.findall(series["labels"] or ""):
                    if not (label == "le" and self.kinds[family] == "histogram"):
                        self.labels[family].setdefault(label, set()).add(value)
                self.values[line.rsplit(" ", 1)[0]] = float(series["value"])

    def family(self, series: str) -> str:
        for part in PARTS_OF_HISTOGRAM:
            if self.kinds.get(series.removesuffix(part)) == "histogram":
                return series.removesuffix(part)
        assert series in self.kinds, f"{series} has no # TYPE"
        return series
