"""The admin API keeps to its own document: requests made from it, by schemathesis, and answers held against it."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node import DEADLINE_S, Node, wait_for

# The same requests in each run. A run takes a minute or two; the limit is for one that hangs.
SEED = "20"
EXAMPLES = "12"
LIMIT_S = 1800
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
# A stream of events does not end; backups take what time they take.
APART = ("/events", "/node/backups", "/users/{user}/mailbox/import")


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path, {"admin.requests_per_s": 100_000}).start()
    try:
        yield node
    finally:
        node.stop()


def secret(node: Node) -> str:
    return (node.data / "admin.secret").read_text(encoding="utf-8").strip()


def test_answers_are_those_of_the_document(node, tmp_path):
    for user in ("alice", "bob"):
        node.add_user(user)
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"http://{node.admin_listen}/admin/v1/openapi.json",
        "--header",
        f"Authorization: Bearer {secret(node)}",
        "--checks",
        CHECKS,
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        EXAMPLES,
        "--seed",
        SEED,
        "--generation-database",
        "none",
        "--request-timeout",
        "30",
        "--workers",
        "1",
        "--no-color",
    ]
    for path in APART:
        command += ["--exclude-path", path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    said = (done.stdout + done.stderr).replace(secret(node), "SECRET")
    assert done.returncode == 0, said
    # It did ask: nearly every operation was tried.
    document = node.request("GET", "/admin/v1/openapi.json")[1]
    operations = sum(len(methods) for methods in document["paths"].values())
    assert operations > 40
    assert "No tests" not in said, said
    assert node.request("GET", "/readyz", secret=False)[0] in (200, 503)


def test_a_stream_tells_what_happens_and_goes_on(node):
    def lines(query: str, headers: dict) -> list[str]:
        host, port = node.admin_listen.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        try:
            bearer = {"Authorization": f"Bearer {secret(node)}"}
            connection.request("GET", f"/admin/v1/events?{query}", headers=bearer | headers)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.getheader("content-type") == "text/event-stream"
            return answer.read().decode().splitlines()
        finally:
            connection.close()

    for _ in range(2):
        assert node.request("GET", "/admin/v1/node", secret=False)[0] == 401
    told = lines("after=0&kinds=security&count=2", {})
    events = [json.loads(line.removeprefix("data: ")) for line in told if line.startswith("data: ")]
    assert [event["kind"] for event in events[-2:]] == ["security", "security"]
    again = lines("kinds=security&count=1", {"Last-Event-ID": str(events[-2]["id"])})
    assert f"id: {events[-1]['id']}" in again


def test_a_drain_sends_clients_away_and_an_undrain_takes_them_again(node):
    from wire import Device

    node.add_user("alice")
    with Device(node, "alice", "phone") as device:
        status, told = node.request("POST", "/admin/v1/node/drain", {"retry_after_ms": 7})
        assert (status, told["state"]) == (202, "draining")
        device.expect("bye", reason="shutdown", retry_after_ms=7)
    wait_for("the drain", lambda: node.request("GET", "/admin/v1/node/drain")[1]["state"] == "drained")
    assert node.request("GET", "/readyz", secret=False)[0] == 503
    assert node.request("POST", "/admin/v1/node/undrain")[0] == 200
    assert node.request("GET", "/readyz", secret=False)[0] == 200
    with Device(node, "alice", "phone"):
        pass


def test_tokens_and_the_audit_log_outlive_a_crash(node):
    status, made = node.request("POST", "/admin/v1/admin-tokens", {"name": "ann", "role": "viewer"})
    assert status == 201
    node.kill()
    node.start()
    host, port = node.admin_listen.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
    connection.request("GET", "/admin/v1/whoami", headers={"Authorization": f"Bearer {made['token']}"})
    assert json.loads(connection.getresponse().read())["name"] == "ann"
    connection.close()
    entries = node.request("GET", "/admin/v1/audit")[1]["entries"]
    assert [entry["action"] for entry in entries] == ["admin_tokens.issue"]
    for file in ("audit.ndjson", "crashes.ndjson", "admin.secret"):
        assert os.stat(node.data / file).st_mode & 0o077 == 0, file


def test_what_cannot_be_understood_is_refused(node):
    host, port = node.admin_listen.rsplit(":", 1)
    bearer = {"Authorization": f"Bearer {secret(node)}"}

    def ask(method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, headers if headers is not None else bearer)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    for path in (
        "/admin/v1/../../etc/passwd",
        "/admin/v1/docs/../../../etc/passwd",
        "/admin/v1/%2e%2e/%2e%2e/etc/passwd",
        "/admin/v1/docs%00.js",
        "/admin/v1//node",
    ):
        status, text = ask("GET", path)
        assert status in (400, 404), f"{path}: {status} {text}"
        assert "root:" not in text
    assert ask("POST", "/admin/v1/users", b"[" * 200_000)[0] == 413
    assert ask("POST", "/admin/v1/users", b"[" * 60_000)[0] == 400
    assert ask("GET", "/admin/v1/node", headers={"Cookie": f"Authorization={secret(node)}"})[0] == 401
    assert ask("POST", "/admin/v1/users", b'{"user":"x"}', {"X-HTTP-Method-Override": "GET"})[0] == 401
    assert ask("GET", "/admin/v1/node")[0] == 200
