"""Frames that are odd, wrong or too large (protocol.md, sections 3, 10, 11 and 13)."""

import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from wire import Device


@pytest.fixture
def pair(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a, Device(node, bob, "laptop") as b:
        yield a, b, bob


def test_ping_gives_the_nonce_back(pair):
    a, _, _ = pair
    for nonce in (0, "n", None, [1, {"x": None}], "ä" * 40):
        a.say(type="ping", nonce=nonce)
        a.expect("pong", nonce=nonce)
    a.say(type="ping")
    assert a.expect("pong")["nonce"] is None
    a.say_raw(json.dumps({"type": "ping", "nonce": "x" * 255}))
    a.expect("error", code="too_large")
    assert a.ws.ping().wait(30), "no answer to a WebSocket ping"


def test_unknown_types_and_fields(pair):
    a, b, bob = pair
    a.say_raw('{"type":"dance","seq":{"any":"thing"}}')
    refusal = a.expect("error", code="unknown_type")
    assert refusal["ref"] is None
    sent = a.ids.new()
    a.say_raw(
        json.dumps({"type": "send", "id": sent, "to": {"user": bob, "x": 1}, "body": 1, "new": {}, "seq": "odd", "ttl_s": None})
    )
    a.expect("accepted", id=sent)
    assert b.expect("message")["id"] == sent


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "{",
        "[]",
        "7",
        '{"seq":1}',
        '{"type":7}',
        '{"type":"ack"}',
        '{"type":"ack","seq":-1}',
        '{"type":"ack","seq":"1"}',
        '{"type":"ack","seq":1.5}',
        '{"type":"ping","ack":"x"}',
        '{"type":"read","from":"bob"}',
        '{"type":"read","from":"Bob!","id":"0190163d-8694-739b-aea5-966c26f8ad91"}',
        '{"type":"send","id":"not-an-id","to":{"user":"bob"},"body":1}',
        '{"type":"send","id":"0190163d-8694-439b-aea5-966c26f8ad91","to":{"user":"bob"},"body":1}',
        '{"type":"ping","type":"ping"}',
        '{"type":"ping"} trailing',
    ],
)
def test_bad_frames_are_refused_and_the_connection_kept(pair, raw):
    a, _, _ = pair
    a.say_raw(raw)
    refusal = a.expect("error")
    assert (refusal["code"], refusal["ref"]) == ("bad_frame", None)
    assert refusal["message"]
    a.still_open()


@pytest.mark.parametrize(
    "rest",
    ['"body":1', '"to":{"user":"bob"}', '"to":{"user":"B O B"},"body":1', '"to":"bob","body":1', '"to":{"user":"bob"},"body":1,"ttl_s":-1'],
)
def test_a_bad_send_is_refused_by_its_id(pair, rest):
    a, _, _ = pair
    sent = a.ids.new()
    a.say_raw(f'{{"type":"send","id":"{sent}",{rest}}}')
    a.expect("error", code="bad_frame", ref=sent)
    a.still_open()


def test_a_body_above_the_limit_costs_the_message_only(pair):
    a, b, bob = pair
    too_large = a.send(bob, "x" * 65_535)
    a.expect("error", code="too_large", ref=too_large)
    fits = a.send(bob, "x" * 65_534)
    a.expect("accepted", id=fits)
    assert len(b.expect("message")["body"]) == 65_534


def test_a_frame_above_the_limit_costs_the_connection(pair):
    a, _, _ = pair
    a.say_raw(json.dumps({"type": "ping", "padding": "x" * 73_728}))
    a.expect_bye("too_large", 1009)


def test_the_limit_counts_for_all_fragments_together(pair):
    a, _, _ = pair
    with suppress(ConnectionClosed):  # the server may not wait for the last fragment
        a.say_raw(['{"type":"ping","padding":"', *["x" * 10_000] * 8, '"}'])
    a.expect_bye("too_large", 1009)


def test_fragments_make_one_frame(pair):
    a, b, bob = pair
    sent = a.ids.new()
    whole = json.dumps({"type": "send", "id": sent, "to": {"user": bob}, "body": "äöü€😀" * 10}, ensure_ascii=False)
    cut = [whole[n : n + 7] for n in range(0, len(whole), 7)]
    a.say_raw(cut)
    a.expect("accepted", id=sent)
    assert b.expect("message")["body"] == "äöü€😀" * 10


def test_a_character_may_be_cut_by_a_fragment(pair):
    a, _, _ = pair
    whole = '{"type":"ping","nonce":"€"}'.encode()
    at = whole.index("€".encode()) + 1
    a.ws.send([whole[:at], whole[at:]], text=True)
    a.expect("pong", nonce="€")


def test_binary_is_refused(pair):
    a, _, _ = pair
    a.say_raw(b'{"type":"ping"}')
    a.expect_bye("unsupported_data", 1003)


def test_text_that_is_not_utf8_is_refused(pair):
    a, _, _ = pair
    a.ws.send(b'{"type":"ping","nonce":"\xff"}', text=True)
    a.expect_bye("invalid_utf8", 1007)


def test_too_many_refused_frames_in_a_row(pair):
    a, b, _ = pair
    for _ in range(31):
        a.say_raw('{"type":"dance"}')
    a.still_open()  # sets the count back
    for _ in range(32):
        a.say_raw("{")
    a.expect_bye("too_many_errors", 1008)
    b.still_open()
