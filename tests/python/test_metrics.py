"""docs/metrics.md tells what a server exposes: nothing more, nothing less."""

import json
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

import metrics_page as page
import schemas
from node import DEADLINE_S, Node, wait_for
from wire import Device

USERS = ("metrics-alice", "metrics-bob")
DEVICE = "metrics-phone"


def exposed(node: Node) -> page.Exposed:
    status, text = node.request("GET", "/metrics", secret=False)
    assert status == 200
    return page.Exposed(text)


def http(node: Node, context: ssl.SSLContext | None = None) -> bytes:
    """Asks for an upgrade where there is none; the first bytes of the answer."""
    host, port = node.listen.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as plain:
        stream = context.wrap_socket(plain) if context else plain
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        stream.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"\r\n")
        return stream.recv(64)


@pytest.fixture(scope="module")
def after_traffic(tmp_path_factory):
    """A server after some of everything."""
    node = Node(tmp_path_factory.mktemp("metrics"), {"limits.session_linger_ms": 0}).start()
    try:
        alice, bob = USERS
        for user in USERS:
            node.add_user(user)
        with Device(node, alice, DEVICE) as a, Device(node, bob, DEVICE) as b:
            for n in range(3):
                said = a.send(bob, n)
                a.expect("accepted", id=said)
                b.expect_message(n + 1)
            a.send(bob, 2, message_id=said)
            a.expect("accepted", id=said, duplicate=True)
            b.say(type="ack", seq=2)
            a.expect("receipt", **{"with": bob})
            a.send("metrics-nobody", 1)
            a.expect("error", code="unknown_user")
            a.send(bob, "typing", ephemeral=True)
            b.expect("message", ephemeral=True)
            b.drop()
        # Or the next connection replaces this one, which then ends for another reason.
        wait_for("bob to be away", lambda: not node.admin("GET", f"/users/{bob}")["connected"])
        with Device(node, bob, DEVICE) as b:
            b.expect_message(3, redelivered=True)
        assert b" 404 " in http(node)
        wait_for("both to be gone", lambda: exposed(node).values["stonechat_connections"] == 0)
        # Gauges of the store are set by its housekeeper, every now and then.
        wait_for("the journal to be told", lambda: exposed(node).values["stonechat_journal_bytes"] > 0)
        yield exposed(node)
    finally:
        node.stop()


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory):
    """A server that speaks TLS, after a handshake and a reload."""
    directory = tmp_path_factory.mktemp("metrics-tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    settings = {"server.tls_cert": str(cert), "server.tls_key": str(key)}
    node = Node(directory, settings).start()
    try:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        assert b" 404 " in http(node, context)
        node.process.send_signal(signal.SIGHUP)
        done = 'stonechat_tls_reloads_total{listener="clients",outcome="done"}'
        wait_for("the reload", lambda: exposed(node).values.get(done))
        yield exposed(node)
    finally:
        node.stop()


@pytest.fixture(scope="module")
def with_traces(tmp_path_factory):
    """A server that follows messages; where it exports to, nobody is."""
    settings = {"traces.endpoint": "http://127.0.0.1:9"}
    node = Node(tmp_path_factory.mktemp("metrics-traces"), settings).start()
    try:
        yield exposed(node)
    finally:
        node.stop()


def test_what_is_documented_is_exposed_and_what_is_exposed_is_documented(after_traffic, with_tls, with_traces):
    told = {name: family.kind for name, family in page.documented().items()}
    not_always = ("stonechat_tls_", "stonechat_trace")
    without = {name: kind for name, kind in told.items() if not name.startswith(not_always)}
    assert after_traffic.kinds == without
    assert with_tls.kinds.items() | with_traces.kinds.items() <= told.items()
    assert after_traffic.kinds | with_tls.kinds | with_traces.kinds == told


def test_labels_are_documented_and_bounded(after_traffic, with_tls, with_traces):
    families, values = page.documented(), page.documented_labels()
    assert values.keys() == frozenset().union(*(family.labels for family in families.values()))
    for side in (after_traffic, with_tls, with_traces):
        for name, labels in side.labels.items():
            # A metric with labels may have no series yet, but never one of other labels.
            assert labels.keys() in (families[name].labels, frozenset()), name
            for label, seen in labels.items():
                assert label == "version" or seen <= values[label], f"{name}: {label} {seen}"
    seen = after_traffic.labels
    assert seen["stonechat_disconnects_total"]["reason"] == {"client_closed", "connection_lost"}
    assert seen["stonechat_connections_refused_total"]["status"] == {"404"}
    assert seen["stonechat_frames_received_total"]["type"] == values["type"]
    assert with_tls.labels["stonechat_tls_handshakes_total"]["kind"] == values["kind"]
    assert with_traces.labels["stonechat_traces_started_total"]["origin"] == values["origin"]
    outcomes = with_traces.labels["stonechat_trace_spans_total"]["outcome"]
    assert outcomes == {"exported", "failed", "dropped"}


def of_the_protocol(frame: str, enumeration: str) -> set[str]:
    schema = json.loads((schemas.DOCS / f"schema/server.{frame}.schema.json").read_text(encoding="utf-8"))
    return {entry["const"] for entry in schema["$defs"][enumeration]["oneOf"]}


def test_reasons_and_codes_are_those_of_the_protocol():
    told = page.documented_labels()
    ways_of_clients = {"client_closed", "connection_lost", "connection_failed"}
    assert told["reason"] == of_the_protocol("bye", "CloseReason") | ways_of_clients
    assert told["code"] == of_the_protocol("error", "ErrorCode")


def test_nobody_is_named(after_traffic):
    for secret in (*USERS, DEVICE, "metrics-nobody", "127.0.0.1"):
        assert secret not in after_traffic.text


def test_names_and_units_follow_the_conventions(after_traffic, with_tls, with_traces):
    for name, family in page.documented().items():
        assert (family.kind == "counter") == name.endswith("_total"), name
        stem = name.removesuffix("_total")
        for unit in ("bytes", "seconds"):
            assert (family.unit.split()[0] == unit) == stem.endswith(f"_{unit}"), f"{name}: {family.unit}"
    # OpenMetrics calls a counter by its name without the suffix: two must not meet there.
    stems = [name.removesuffix("_total") for name in page.documented()]
    assert len(stems) == len(set(stems))
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install Debian's `prometheus`, as tests/run.sh does"
    for side in (after_traffic, with_tls, with_traces):
        done = subprocess.run([promtool, "check", "metrics"], input=side.text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_counted_is_told(after_traffic):
    values = after_traffic.values
    assert values["stonechat_messages_accepted_total"] == 4  # three and a resend
    assert values["stonechat_messages_duplicate_total"] == 1
    assert values['stonechat_messages_refused_total{code="unknown_user"}'] == 1
    assert values["stonechat_messages_redelivered_total"] == 1
    assert values["stonechat_connections_opened_total"] == 3
    syncs = values["stonechat_journal_sync_seconds_count"]
    assert syncs >= 3 and values['stonechat_journal_sync_seconds_bucket{le="+Inf"}'] == syncs
    assert values['stonechat_frames_received_total{type="send"}'] == 6
