"""Sending, receiving, several devices, receipts (protocol.md, sections 6 to 9)."""

import json

import pytest

from node import wait_for
from wire import Device, number, text


def test_a_first_conversation(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        question = a.send(bob, {"text": "Are you there?"})
        taken = a.expect("accepted", id=question)
        assert "duplicate" not in taken and "ephemeral" not in taken
        with Device(node, bob, "laptop") as b:
            assert b.welcome["pending"] == 1
            got = b.expect("message")
            assert got == {
                "type": "message",
                "seq": 1,
                "id": question,
                "from": {"user": alice, "device": "phone"},
                "ts_ms": taken["ts_ms"],
                "body": {"text": "Are you there?"},
            }
            answer = b.send(alice, {"text": "Yes"}, ack=1)
            b.expect("accepted", id=answer)
            assert a.expect("message")["body"] == {"text": "Yes"}
            first = a.expect("receipt", **{"with": bob})
            assert (first["delivered"], first["read"]) == (question, None)
            b.say(type="read", from_=alice, id=question)
            second = a.expect("receipt", **{"with": bob})
            assert (second["delivered"], second["read"]) == (question, question)
            assert second["rev"] > first["rev"]


@pytest.mark.parametrize(
    "body",
    ['{"a" : [1,  2.50, 1e400], "\\u00e4":"ä\\n"}', "null", '"\\ud83d\\ude00"', "-0.0", "[]", '"' + "x" * 65_534 + '"'],
    ids=["spaces and numbers", "null", "escapes", "minus zero", "empty", "largest"],
)
def test_a_body_arrives_byte_for_byte(node, users, body):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a, Device(node, bob, "laptop") as b:
        a.say_raw(f'{{"type":"send","id":"{a.ids.new()}","to":{{"user":"{bob}"}},"body":{body}}}')
        raw = b.ws.recv(timeout=30)
        assert json.loads(raw)["type"] == "message"
        assert body in raw


def test_what_was_not_acknowledged_comes_again(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        with Device(node, bob, "laptop") as b:
            for n in range(1, 6):
                a.send(bob, n)
                assert "redelivered" not in b.expect_message(n, body=n)
            b.say(type="ack", seq=2)
            b.still_open()
            b.drop()
        a.expect("receipt", **{"with": bob})
        # Or message 6 is sent to the connection that is going, and the next one's is a repetition.
        wait_for("bob to be away", lambda: not node.admin("GET", f"/users/{bob}")["connected"])
        a.send(bob, 6)
        sent = [frame["id"] for frame in (a.expect("accepted") for _ in range(6))]
        # The cursor moves to 3 with the sign-in; 4 and 5 were sent before, 6 was not.
        with Device(node, bob, "laptop", ack=3) as b:
            got = [b.expect("message") for _ in range(3)]
            assert [m["seq"] for m in got] == [4, 5, 6]
            assert [m["id"] for m in got] == sent[3:]
            assert [m.get("redelivered", False) for m in got] == [True, True, False]
            b.say(type="ping", ack=6)
            b.expect("pong", nonce=None)
            a.expect("receipt", delivered=sent[5])
        with Device(node, bob, "laptop") as b:
            assert b.welcome["pending"] == 0
            a.send(bob, 7)
            assert b.expect("message")["seq"] == 7


def test_a_resend_is_stored_once(node, users):
    alice, bob = users(node, "alice", "bob")
    first = Device(node, alice, "phone")
    one, two = first.send(bob, "one"), first.send(bob, "two")
    before = {name: first.expect("accepted", id=name)["ts_ms"] for name in (one, two)}
    first.drop()
    with Device(node, alice, "phone", before=first) as a:
        a.send(bob, "one", message_id=one)
        a.send(bob, "two", message_id=two.upper())
        three = a.send(bob, "three")
        answers = [a.expect("accepted") for _ in range(3)]
        assert [f["id"] for f in answers] == [one, two, three]
        assert [f.get("duplicate", False) for f in answers] == [True, True, False]
        assert [f["ts_ms"] for f in answers[:2]] == [before[one], before[two]]
    with Device(node, bob, "laptop") as b:
        assert b.welcome["pending"] == 3
        assert [b.expect("message")["body"] for _ in range(3)] == ["one", "two", "three"]


def test_the_window_holds_the_last_64_ids(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        ids = [a.send(bob, n) for n in range(10)]
        a.ids.last += 1  # leaves an id out, for later
        never_used = a.ids.last
        ids += [a.send(bob, n) for n in range(10, 64)]
        assert [a.expect("accepted")["id"] for _ in ids] == ids
        a.send(bob, "again", message_id=ids[0])
        assert a.expect("accepted")["duplicate"] is True
        ids.append(a.send(bob, 64))
        a.expect("accepted", id=ids[64])
        a.send(bob, "again", message_id=ids[0])
        a.expect("error", code="id_too_old", ref=ids[0])
        a.send(bob, "again", message_id=ids[1])
        a.expect("accepted", id=ids[1], duplicate=True)
        never_used = text(never_used)
        a.send(bob, "from the past", message_id=never_used)
        a.expect("error", code="id_too_old", ref=never_used)
        # Ids belong to the device: another one may use what this one may not.
        with Device(node, alice, "tablet") as other:
            other.send(bob, "another device", message_id=never_used)
            other.expect("accepted", id=never_used)


def test_every_send_is_answered_and_acceptance_keeps_the_order(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        # More than may be unanswered, sent without waiting: each is accepted or refused, once.
        ids = [a.send(f"nobody-{bob}" if n % 10 == 3 else bob, n) for n in range(150)]
        to_nobody = ids[3::10]
        answers = {}
        accepted = []
        while len(answers) < len(ids):
            frame = a.next()
            if frame["type"] == "accepted":
                name = frame["id"]
                accepted.append(name)
            else:
                name = frame["ref"]
                assert frame["code"] == "too_many_unanswered" or (
                    frame["code"] == "unknown_user" and name in to_nobody
                )
            assert name in ids and name not in answers, frame
            answers[name] = frame
        assert accepted == sorted(accepted, key=ids.index)
        # The first 64 are within the limit whatever the timing.
        assert set(ids[:64]) - set(to_nobody) <= set(accepted)
        a.still_open()
    with Device(node, bob, "laptop") as b:
        assert b.welcome["pending"] == len(accepted)
        assert [b.expect("message")["id"] for _ in accepted] == accepted


def test_every_device_gets_it_but_the_sending_one(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as phone, Device(node, alice, "tablet") as tablet:
        with Device(node, bob, "laptop") as laptop, Device(node, bob, "watch") as watch:
            sent = phone.send(bob, "to all of you")
            for device in (laptop, watch):
                got = device.expect("message")
                assert got["id"] == sent and "to" not in got
            copy = tablet.expect("message")
            assert copy["id"] == sent
            assert copy["from"] == {"user": alice, "device": "phone"}
            assert copy["to"] == {"user": bob}
            # The answer is the first thing the phone itself is sent.
            laptop.send(alice, "answer")
            assert phone.expect("message")["body"] == "answer"
            assert tablet.expect("message")["body"] == "answer"


def test_a_note_to_oneself_reaches_the_other_devices(node, users):
    [alice] = users(node, "alice")
    with Device(node, alice, "phone") as phone, Device(node, alice, "tablet") as tablet:
        note = phone.send(alice, "milk")
        phone.expect("accepted", id=note)
        got = tablet.expect("message", id=note)
        assert got["to"] == {"user": alice}
        tablet.send(alice, "bread", ack=got["seq"])
        assert phone.expect("message")["body"] == "bread"
        assert [f["type"] for f in phone.history if f["type"] == "message"] == ["message"]


def test_each_device_has_its_own_cursor_and_a_new_one_gets_what_is_held(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        with Device(node, bob, "laptop") as laptop, Device(node, bob, "watch"):
            for n in (1, 2, 3):
                a.send(bob, n)
                laptop.expect_message(n)
            laptop.say(type="ack", seq=3)
            a.expect("receipt", **{"with": bob})
        # The watch has acknowledged nothing, so all three are held.
        with Device(node, bob, "new") as new:
            assert new.welcome["pending"] == 3
            assert [new.expect("message")["body"] for _ in range(3)] == [1, 2, 3]
        with Device(node, bob, "laptop") as laptop:
            assert laptop.welcome["pending"] == 0


def test_acknowledgements_out_of_range(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a, Device(node, bob, "laptop") as b:
        sent = a.send(bob, "one")
        b.expect_message(1)
        b.say(type="ack", seq=2)
        b.expect("error", code="bad_ack", ref=None)
        b.say(type="ack", seq=0)
        b.say(type="ack", seq=1)
        b.say(type="ack", seq=1)
        b.still_open()
        a.expect("receipt", delivered=sent)
        assert [f for f in b.history if f["type"] == "error"][1:] == []


def test_the_server_waits_at_the_window(start_node, users):
    node = start_node(limits__unacked_max=4)
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a, Device(node, bob, "laptop") as b:
        assert b.welcome["limits"]["unacked_max"] == 4
        ids = [a.send(bob, n) for n in range(10)]
        for sent in ids:
            a.expect("accepted", id=sent)
        # The answer to this ephemeral message passes the four: nothing more is on its way.
        assert [b.expect("message")["seq"] for _ in range(4)] == [1, 2, 3, 4]
        a.send(bob, "mark", ephemeral=True)
        assert b.expect("message")["seq"] == 0
        b.say(type="ack", seq=2)
        assert [b.expect("message")["seq"] for _ in range(2)] == [5, 6]
        a.send(bob, "mark", ephemeral=True)
        assert b.expect("message")["seq"] == 0
        b.say(type="ack", seq=6)
        assert [b.expect("message")["seq"] for _ in range(4)] == [7, 8, 9, 10]


def test_ephemeral_messages(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        typing = a.send(bob, {"typing": True}, ephemeral=True)
        a.expect("accepted", id=typing, ephemeral=True)
        with Device(node, bob, "laptop") as b:
            assert b.welcome["pending"] == 0
            later = a.send(bob, {"typing": False}, ephemeral=True)
            got = b.expect("message")
            assert (got["seq"], got["id"], got["ephemeral"]) == (0, later, True)
            # Its id is not remembered: it may come twice, and an older one is no error.
            a.send(bob, 1, message_id=typing, ephemeral=True)
            assert b.expect("message")["id"] == typing
            stored = a.send(bob, "stored")
            a.expect("accepted", id=stored)
            assert b.expect("message")["seq"] == 1


def test_a_user_that_does_not_exist(node, users):
    [alice] = users(node, "alice")
    with Device(node, alice, "phone") as a:
        lost = a.send(f"not-{alice}", "hello?")
        a.expect("error", code="unknown_user", ref=lost)
        a.still_open()


def test_receipts_are_watermarks_and_told_once(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a:
        ids = [a.send(bob, n) for n in range(5)]
        for sent in ids:
            a.expect("accepted", id=sent)
    with Device(node, bob, "laptop") as b:
        for n in range(1, 6):
            b.expect_message(n)
        b.say(type="ack", seq=5)
        b.say(type="read", from_=alice, id=ids[2])
        b.say(type="read", from_=alice, id=ids[1])  # stale: ignored
        b.still_open()
        assert not [f for f in b.history if f["type"] == "error"]
        with Device(node, alice, "phone") as a:
            # Away at the time: the latest state may come as one receipt.
            receipt = a.expect("receipt")
            while receipt["read"] != ids[2]:
                receipt = a.expect("receipt")
            assert receipt["delivered"] == ids[4]
        with Device(node, alice, "phone", rev=receipt["rev"]) as a:
            b.say(type="read", from_=alice, id=ids[3])
            moved = a.expect("receipt")
            assert moved["read"] == ids[3] and moved["rev"] > receipt["rev"]
            a.say(type="ping", rev=moved["rev"])
            a.expect("pong")
        # What was said is remembered, also without `rev` in hello.
        with Device(node, alice, "phone") as a:
            b.say(type="read", from_=alice, id=ids[4])
            assert a.expect("receipt")["read"] == ids[4]


def test_reading_what_never_came(node, users):
    alice, bob = users(node, "alice", "bob")
    with Device(node, alice, "phone") as a, Device(node, bob, "laptop") as b:
        b.say(type="read", from_=alice, id=b.ids.new())
        b.expect("error", code="unknown_message")
        sent = a.send(bob, "one")
        b.expect_message(1)
        b.say(type="read", from_=alice, id=sent, ack=1)
        a.expect("receipt", read=sent, delivered=sent)
        b.say(type="read", from_=alice, id=text(number(sent) + 1))
        b.expect("error", code="unknown_message")
        b.still_open()
