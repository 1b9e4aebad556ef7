"""Limits, drain and crashes (protocol.md, sections 6, 10 and 11)."""

import threading
import time

from minimal import MinimalClient
from node import wait_for
from wire import Device

# First byte of an unfragmented WebSocket ping.
PING = b"\x89"


def test_rate_limited_sends_may_be_repeated_under_the_same_id(start_node, users):
    node = start_node(limits__messages_per_s=1, limits__messages_burst=3)
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        # The fourth, unless this machine takes a second for one.
        for last in range(100):
            held = a.send(bob, last)
            answer = a.next()
            if answer["type"] == "error":
                break
            assert (answer["type"], answer["id"]) == ("accepted", held)
        assert answer["type"] == "error", "the limit did not bite"
        while answer["type"] == "error":
            assert (answer["code"], answer["ref"]) == ("rate_limited", held)
            assert answer["retry_after_ms"] > 0
            # The wait is what the server asked for, not a guess.
            time.sleep(answer["retry_after_ms"] / 1000)
            a.send(bob, last, message_id=held)
            answer = a.next()
        assert (answer["type"], answer["id"]) == ("accepted", held)
        assert "duplicate" not in answer
    with Device(node, bob, "laptop") as b:
        assert [b.expect("message")["body"] for _ in range(last + 1)] == list(range(last + 1))


def test_a_resend_of_what_was_accepted_is_never_rate_limited(start_node, users):
    node = start_node(limits__messages_per_s=1, limits__messages_burst=3)
    alice, bob = users(node, "alice", "bob")
    first = Device(node, alice, "phone")
    ids = [first.send(bob, n) for n in range(3)]
    for sent in ids:
        first.expect("accepted", id=sent)
    first.drop()
    with Device(node, alice, "phone", before=first) as a:
        for n, sent in enumerate(ids):
            a.send(bob, n, message_id=sent)
        for sent in ids:
            answer = a.next()
            assert (answer["type"], answer.get("duplicate")) == ("accepted", True), answer
            assert answer["id"] == sent


def test_a_full_mailbox(start_node, users):
    node = start_node(storage__quota_messages=3)
    alice, bob, carol = users(node, "alice", "bob", "carol")
    with Device(node, alice, "phone") as a:
        for n in range(3):
            a.expect("accepted", id=a.send(bob, n))
        a.expect("error", code="mailbox_full", ref=a.send(bob, 3))
        a.expect("accepted", id=a.send(carol, "you have room"))
        with Device(node, bob, "laptop") as b:
            for n in range(1, 4):
                b.expect_message(n)
            b.say(type="ack", seq=3)
            a.expect("receipt", **{"with": bob})
            a.expect("accepted", id=a.send(bob, 3))
            assert b.expect("message")["body"] == 3


def test_expired_messages_are_not_delivered(start_node, users):
    node = start_node(storage__expire_interval_ms=50)
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        a.expect("accepted", id=a.send(bob, "soon stale", ttl_s=1))
        a.expect("accepted", id=a.send(bob, "fresh"))
        wait_for(
            "the message to expire",
            lambda: node.admin("GET", f"/users/{bob}")["mailbox"]["expired_total"] == 1,
        )
        with Device(node, bob, "laptop") as b:
            assert b.welcome["pending"] == 1
            assert b.expect("message")["body"] == "fresh"


def test_a_silent_peer_is_pinged_and_a_dead_one_dropped(start_node, users):
    node = start_node(server__heartbeat_ms=1000)
    [alice] = users(node, "alice")
    with Device(node, alice, "phone") as a:
        assert a.welcome["heartbeat_ms"] == 1000
        heard = []
        original = a.ws.protocol.receive_data

        def deaf(data: bytes) -> None:
            # Takes what arrives off the socket but lets no ping be answered; more may come with it.
            while data[:1] == PING:
                heard.append(data[:1])
                data = data[2 + data[1] :]
            if data:
                original(data)

        a.ws.protocol.receive_data = deaf
        a.expect_bye("heartbeat_timeout", 4005)
        assert any(data[:1] == PING for data in heard), "closed without a ping first"


def test_drain(start_node, users):
    node = start_node()
    alice, bob = users(node, "alice", "bob")
    token = node.token(bob)
    with Device(node, alice, "phone") as a:
        sent = [a.send(bob, n) for n in range(20)]
        for message_id in sent:
            a.expect("accepted", id=message_id)
        ended = []
        thread = threading.Thread(target=lambda: ended.append(node.terminate()))
        thread.start()
        bye = a.expect_bye("shutdown", 1001)
        assert bye["retry_after_ms"] > 0
        thread.join()
        assert ended == [0]
    node.start()
    with Device(node, bob, "laptop", token=token) as b:
        assert b.welcome["pending"] == 20
        got = [b.expect("message") for _ in range(20)]
        assert [m["id"] for m in got] == sent
        assert not any("redelivered" in m for m in got)


def test_kill_9_in_mid_traffic_loses_nothing_and_doubles_nothing(start_node, users):
    node = start_node(limits__messages_per_s=100_000, limits__messages_burst=100_000)
    alice, bob = users(node, "alice", "bob")
    clients = {
        alice: MinimalClient(node, node.token(alice), "phone"),
        bob: MinimalClient(node, node.token(bob), "laptop"),
    }
    each = 1_000
    try:
        for user, other in ((alice, bob), (bob, alice)):
            clients[user].start([(other, [user, n]) for n in range(each)])
        for goal in (each // 4, each // 2):
            wait_for("traffic", lambda goal=goal: all(c.has_taken(goal) for c in clients.values()))
            node.kill()
            node.start()
        wait_for(
            "everything to arrive",
            lambda: all(c.has_taken(each) and not c.unanswered for c in clients.values()),
        )
        for user, other in ((alice, bob), (bob, alice)):
            assert clients[user].taken_over == [[other, n] for n in range(each)]
            seqs = clients[user].seqs
            assert all(a < b for a, b in zip(seqs, seqs[1:]))
            assert clients[user].connects >= 3
            receipt = clients[user].wait_for_receipt(other)
            assert receipt["delivered"] == clients[user].last_id
    finally:
        for client in clients.values():
            client.stop()
