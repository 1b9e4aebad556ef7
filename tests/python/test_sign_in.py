"""Opening the WebSocket and signing in (protocol.md, section 2)."""

import urllib.error
import urllib.request

import pytest
from websockets.exceptions import InvalidStatus

from wire import SUBPROTOCOL, Device, Wire


def test_welcome_tells_who_and_what(node, users):
    [alice] = users(node, "alice")
    with Device(node, alice, "Phone-1.x_y") as phone:
        welcome = phone.welcome
        assert phone.ws.subprotocol == SUBPROTOCOL
        assert phone.ws.protocol.extensions == []
        assert welcome["pending"] == 0
        assert welcome["session"]
        assert welcome["heartbeat_ms"] == 30_000
        assert welcome["limits"] == {
            "unaccepted_max": 64,
            "unacked_max": 256,
            "body_bytes_max": 65_536,
            "frame_bytes_max": 73_728,
            "ttl_s_max": 2_592_000,
            "devices_max": 16,
        }


def test_token_in_the_header_and_no_subprotocol(node, users):
    [alice] = users(node, "alice")
    with Wire(node, header_token=node.token(alice), subprotocols=None) as wire:
        assert wire.ws.subprotocol is None
        wire.say(type="hello", device="phone", client="second-opinion/1")
        assert wire.expect("welcome")["user"] == alice


def test_the_token_in_hello_counts_more_than_the_header(node, users):
    alice, bob = users(node, "alice", "bob")
    token = node.token(bob)
    with Wire(node, header_token=node.token(alice)) as wire:
        wire.say(type="hello", token=token, device="phone")
        assert wire.expect("welcome")["user"] == bob


def test_only_foreign_subprotocols_are_refused(node):
    with pytest.raises(InvalidStatus) as refusal:
        Wire(node, subprotocols=["stonechat.v0.cbor"])
    assert refusal.value.response.status_code == 400


def test_a_foreign_origin_is_refused(node):
    with pytest.raises(InvalidStatus) as refusal:
        Wire(node, origin="https://elsewhere.example")
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize("case", ["forged", "missing", "garbage"])
def test_bad_tokens(node, users, case):
    [alice] = users(node, "alice")
    good = node.token(alice)
    swapped = "B" if good[-10] == "A" else "A"
    hello = {
        "forged": {"token": good[:-10] + swapped + good[-9:]},
        "missing": {},
        "garbage": {"token": "x" * 5000},
    }[case]
    with Wire(node) as wire:
        wire.say(type="hello", device="phone", **hello)
        assert wire.next()["code"] == "unauthorized"
        wire.expect_bye("unauthorized", 4003)


def test_a_token_bound_to_a_device_is_good_for_that_one_only(node, users):
    [alice] = users(node, "alice")
    token = node.token(alice, device="phone")
    with Device(node, alice, "phone", token=token):
        pass
    with Wire(node) as wire:
        wire.say(type="hello", token=token, device="tablet")
        wire.expect("error", code="unauthorized")
        wire.expect_bye("unauthorized", 4003)


def test_a_token_in_the_query_string_is_not_read(node, users):
    [alice] = users(node, "alice")
    with Wire(node, query=f"?token={node.token(alice)}") as wire:
        wire.say(type="hello", device="phone")
        wire.expect("error", code="unauthorized")
        wire.expect_bye("unauthorized", 4003)


def test_hello_comes_first_and_once(node, users):
    alice, bob = users(node, "alice", "bob")
    with Wire(node) as wire:
        wire.send(bob, "too early")
        wire.expect("error", code="unauthorized")
        wire.expect_bye("unauthorized", 4003)
    with Device(node, alice, "phone") as phone:
        phone.say(type="hello", token=node.token(alice), device="phone")
        phone.expect("error", code="unexpected_frame", ref=None)
        phone.still_open()


def test_frames_right_behind_hello_are_handled_after_it(node, users):
    alice, bob = users(node, "alice", "bob")
    token = node.token(alice)
    with Wire(node) as wire:
        wire.say(type="hello", token=token, device="phone")
        sent = wire.send(bob, "no time to wait")
        assert wire.next()["type"] == "welcome"
        wire.expect("accepted", id=sent)


def test_no_hello_in_time(start_node):
    node = start_node(server__auth_deadline_ms=200)
    with Wire(node) as wire:
        wire.expect_bye("auth_timeout", 4002)


def test_the_newer_connection_of_a_device_stays(node, users):
    [alice] = users(node, "alice")
    with Device(node, alice, "phone") as older, Device(node, alice, "phone") as newer:
        bye = older.expect_bye("replaced", 4001)
        assert "retry_after_ms" not in bye
        newer.still_open()


def test_too_many_devices(start_node, users):
    node = start_node(limits__devices_max=2)
    [alice] = users(node, "alice")
    with Device(node, alice, "one"), Device(node, alice, "two"):
        token = node.token(alice)
        with Wire(node) as third:
            third.say(type="hello", token=token, device="three")
            third.expect("error", code="too_many_devices")
            third.expect_bye("too_many_devices", 4007)
        node.admin("DELETE", f"/users/{alice}/devices/one")
        with Device(node, alice, "three"):
            pass


def test_revoked_while_connected(node, users):
    [alice] = users(node, "alice")
    with Device(node, alice, "phone") as phone:
        node.admin("DELETE", f"/users/{alice}/tokens")
        phone.expect_bye("revoked", 4004)


def status_of(node, path="/v1/ws", **headers) -> int:
    """Status of a plain HTTP request to the public listener."""
    request = urllib.request.Request(f"http://{node.listen}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_http_refusals(node):
    assert status_of(node) == 426
    assert status_of(node, "/v1/elsewhere") == 404
    with pytest.raises(InvalidStatus) as refusal:
        Wire(node, additional_headers={"Authorization": "Basic YTpi"})
    assert refusal.value.response.status_code == 401


def test_the_limit_of_connections(start_node, users):
    node = start_node(limits__connections_max=2)
    [alice] = users(node, "alice")
    with Device(node, alice, "one") as one, Device(node, alice, "two") as two:
        with pytest.raises(InvalidStatus) as refusal:
            Wire(node)
        response = refusal.value.response
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        one.still_open()
        two.still_open()
