"""Rules, alerts and dashboards: they hold together, and ask only for what a server exposes."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

import metrics_page as page

DEPLOY = page.ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULES = (PROMETHEUS / "recording.yml", PROMETHEUS / "alerts.yml")
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
# Made by Prometheus itself for each target.
OF_PROMETHEUS = {"up"}

# What stands in a query and is no metric: strings, ranges, labels in lists and selectors, grouping.
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTOR = re.compile(r"\{[^{}]*\}")
RANGE = re.compile(r"\[[^\]]*\]")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
WORDS = {"and", "or", "unless", "offset", "bool", "by", "sum", "min", "max"}
LABELS_OF_PROMETHEUS = {"job", "instance", "le"}


def promtool(*arguments) -> str:
    path = shutil.which("promtool")
    assert path, "promtool is missing: install Debian's `prometheus`, as tests/run.sh does"
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict]:
    found = []
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            found += group["rules"]
    return found


def alerts() -> dict[str, dict]:
    named = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert len(named) >= 15
    return named


def names_in(query: str) -> set[str]:
    """Metrics a query asks for."""
    for what in (STRING, SELECTOR, RANGE, GROUPING):
        query = what.sub(" ", query)
    query = re.sub(r"\boffset\s+\w+", " ", query)
    return {name for name in NAME.findall(query) if name not in WORDS}


def labels_in(query: str) -> set[str]:
    found = set()
    for selector in SELECTOR.findall(STRING.sub('""', query)):
        found |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
    for grouping in GROUPING.findall(query):
        found |= set(re.findall(r"\w+", grouping.split("(", 1)[1]))
    return found


def queries() -> list[tuple[str, str]]:
    """(where, query) of all rules and panels."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            found += [(f"{path.name}: {panel['title']}", t["expr"]) for t in panel.get("targets", [])]
    return found


def test_names_are_found_in_queries():
    query = 'sum by (le, x) (rate(a_bucket{b="c d", e=~"f|g"}[5m])) / h:i:j offset 1d and 0.5 * time() > k'
    assert names_in(query) == {"a_bucket", "h:i:j", "k"}
    assert labels_in(query) == {"le", "x", "b", "e"}


def test_everything_asked_for_is_exposed_or_recorded():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = page.series_names() | recorded | OF_PROMETHEUS
    labels = page.documented_labels().keys() | LABELS_OF_PROMETHEUS
    for where, query in queries():
        asked = names_in(query)
        assert asked, f"{where} asks for nothing: {query}"
        assert asked <= known, f"{where} asks for what nobody exposes: {asked - known}"
        assert labels_in(query) <= labels, f"{where}: {labels_in(query) - labels}"


def test_every_metric_is_watched():
    """A metric in no rule and on no dashboard is one that nobody will ever see."""
    asked = set().union(*(names_in(query) for _, query in queries()))
    asked |= {name.rsplit("_", 1)[0] for name in asked}
    unwatched = {
        "stonechat_build_info",  # its label is shown as a variable
        "stonechat_journal_segments",
        "stonechat_sessions_started_total",
        "stonechat_actors_started_total",
        "stonechat_actors_exited_total",
        "stonechat_actors_abandoned_total",
        "stonechat_tls_reloads_total",
        "stonechat_tasks",
        # Told in the audit log and among the live events, with who and why.
        "stonechat_admin_unauthorized_total",
        "stonechat_events_dropped_total",
        "stonechat_store_purged_total",
        # Of interest to whoever looks at traces; the log says when they are lost.
        "stonechat_traces_started_total",
        "stonechat_traces_limited_total",
        "stonechat_trace_spans_total",
    }
    assert page.documented().keys() - asked == unwatched


def test_rules_are_valid_and_do_what_their_tests_say():
    promtool("check", "rules", *RULES)
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    promtool("test", "rules", *sorted((PROMETHEUS / "tests").glob("*.test.yml")))


def test_every_rule_is_tested():
    fires, stays_quiet, expressions = set(), set(), set()
    for path in (PROMETHEUS / "tests").glob("*.test.yml"):
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for case in test.get("alert_rule_test", []):
                (fires if case["exp_alerts"] else stays_quiet).add(case["alertname"])
            expressions |= {case["expr"] for case in test.get("promql_expr_test", [])}
    assert fires == alerts().keys() == stays_quiet
    assert expressions == {rule["record"] for rule in rules() if "record" in rule}


def sections(text: str) -> dict[str, str]:
    """Anchor, as renderers of Markdown make it, and text of each section."""
    parts = re.split(r"^#{1,6} +(.+)$", text, flags=re.M)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-"): body
        for title, body in zip(parts[1::2], parts[2::2])
    }


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_tells_how_bad_it_is_and_what_to_do(name):
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"]["summary"]
    document, anchor = alert["annotations"]["runbook"].split("#")
    runbook = sections((page.ROOT / document).read_text(encoding="utf-8")).get(anchor)
    assert runbook, f"{document} has no section {anchor}"
    for part in ("Means", "Confirm", "Do"):
        assert f"- **{part}.** " in runbook, f"{anchor} does not say: {part}"


def test_every_runbook_has_its_alert():
    text = (page.ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (Stonechat\w+)$", text, re.M)) == alerts().keys()


def test_links_within_the_pages_lead_somewhere():
    for name in ("operations.md", "metrics.md"):
        text = (page.ROOT / "docs" / name).read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(((?:[\w-]+\.md)?)#([\w-]+)\)", text):
            other = (page.ROOT / "docs" / (target or name)).read_text(encoding="utf-8")
            assert anchor in sections(other), f"{name}: {target}#{anchor}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_holds_together(path):
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"] and board["title"] and "id" not in board
    assert {v["name"] for v in board["templating"]["list"]} == {"datasource", "instance"}
    ids, taken = [], set()
    for panel in board["panels"]:
        ids.append(panel["id"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            for target in panel["targets"]:
                assert 'instance=~"$instance"' in target["expr"], target["expr"]
    assert len(ids) == len(set(ids))


def test_queries_of_dashboards_parse(tmp_path):
    """Grafana's variables filled in, promtool reads them as rules."""
    group = []
    for number, (where, query) in enumerate(queries()):
        filled = query.replace("$__rate_interval", "1m").replace("$instance", ".*")
        assert "$" not in filled, where
        group.append({"record": f"panel:query:{number}", "expr": filled})
    made = tmp_path / "panels.yml"
    made.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": group}]}), encoding="utf-8")
    promtool("check", "rules", made)
