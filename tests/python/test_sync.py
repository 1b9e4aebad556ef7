"""Commit first (durability.md, D1): between the write of a message and anybody hearing of it lies a
data sync of the journal. The same holds for the audit log and the answer to what it is about. Seen from
outside, in the system calls of the real server."""

import re

from node import Node
from wire import Device

ROUNDS = 20

# `1234 write(11</dir/journal/0000000000000001.log>, "…", 99) = 99`, or its two halves.
CALL = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
JOURNAL = re.compile(r"^\d+<[^>]*/journal/[^>]*\.log>")
AUDIT = re.compile(r"^\d+<[^>]*/audit\.ndjson>")
SYNCS = ("fdatasync", "fsync")


def read_trace(path, file=JOURNAL):
    """(position, what, text) of writes to the file and others as they begin, and of syncs of the
    file as they return without an error."""
    under_way, events = {}, []
    for at, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        if resumed := RESUMED.match(line):
            if under_way.pop(resumed["pid"], False) and resumed["rest"].rstrip().endswith("= 0"):
                events.append((at, "sync", ""))
            continue
        call = CALL.match(line)
        if not call:
            continue
        inside = bool(file.match(call["rest"]))
        if call["name"] in SYNCS:
            if call["rest"].endswith("<unfinished ...>"):
                under_way[call["pid"]] = inside
            elif inside and call["rest"].rstrip().endswith("= 0"):
                events.append((at, "sync", ""))
        else:
            under_way[call["pid"]] = False
            events.append((at, "file" if inside else "socket", call["rest"]))
    return events


def first(events, kind, text, after=-1):
    found = (at for at, what, said in events if what == kind and at > after and text in said)
    return next(found, None)


def traced(directory, trace):
    calls = "write,writev,pwrite64,pwritev,sendto,sendmsg,fdatasync,fsync"
    # -D: the server stays our own child, the tracer ends with it.
    return Node(directory, under=("strace", "-D", "-f", "-y", "-s", "65536", "-e", f"trace={calls}", "-o", trace)).start()


def test_a_sync_lies_between_a_message_and_anybody_hearing_of_it(tmp_path):
    trace = tmp_path / "trace"
    node = traced(tmp_path, trace)
    told = []
    try:
        for user in ("alice", "bob"):
            node.add_user(user)
        with Device(node, "alice", "phone") as a, Device(node, "bob", "laptop") as b:
            for n in range(ROUNDS):
                sent = a.send("bob", f"marker-{n:04}")
                a.expect("accepted", id=sent)
                message = b.expect("message", id=sent)
                b.say(type="ack", seq=message["seq"])
                told.append((f"marker-{n:04}", sent))
        assert node.terminate() == 0
    finally:
        node.stop()
    events = read_trace(trace)
    for marker, sent in told:
        written = first(events, "file", marker)
        assert written is not None, f"{marker} was not seen on its way to the journal"
        synced = first(events, "sync", "", after=written)
        assert synced is not None, f"no sync after {marker} was written"
        for frame in (f'\\"accepted\\",\\"id\\":\\"{sent}', f'\\"{marker}\\"'):
            heard = first(events, "socket", frame)
            assert heard is not None, f"nobody heard of {marker}"
            assert synced < heard, f"{marker}: somebody heard of it before it was synced"


def test_what_was_done_is_in_the_audit_log_before_it_is_answered(tmp_path):
    trace = tmp_path / "trace"
    node = traced(tmp_path, trace)
    users = [f"audited-{n:04}" for n in range(ROUNDS)]
    try:
        for user in users:
            node.add_user(user)
        assert node.terminate() == 0
    finally:
        node.stop()
    events = read_trace(trace, AUDIT)
    for user in users:
        written = first(events, "file", user)
        assert written is not None, f"{user} was not seen on its way to the audit log"
        synced = first(events, "sync", "", after=written)
        assert synced is not None, f"no sync after {user} was written"
        told = (at for at, what, said in events if what == "socket" and "HTTP/1.1 201" in said and user in said)
        answered = next(told, None)
        assert answered is not None, f"nobody was told of {user}"
        assert synced < answered, f"{user} was told before it was synced"
