"""The minimal client of docs/protocol.md, section 17, in Python: if the page suffices, this works.

It keeps what the page calls "disk" in memory, because the test kills the server and not the client.
"""

import threading
import time
from collections import deque

from websockets.exceptions import ConnectionClosed, WebSocketException

from node import DEADLINE_S, Node
from wire import Ids, Wire

UNANSWERED_MAX = 64


class MinimalClient:
    def __init__(self, node: Node, token: str, device: str):
        self.node, self.token, self.device = node, token, device
        self.ids = Ids()
        self.unanswered: deque[tuple[str, str, object]] = deque()
        self.outbox: deque[tuple[str, object]] = deque()
        self.taken = self.rev = self.connects = 0
        self.taken_over: list = []
        self.seqs: list[int] = []
        self.receipts: dict[str, dict] = {}
        self.last_id = ""
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def start(self, outbox) -> None:
        self.outbox.extend(outbox)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()

    def fail_if_failed(self) -> None:
        if self.failure is not None:
            raise self.failure

    def has_taken(self, count: int) -> bool:
        self.fail_if_failed()
        return len(self.taken_over) >= count

    def wait_for_receipt(self, user: str) -> dict:
        """The receipt that covers everything sent to a user."""
        end = time.monotonic() + DEADLINE_S
        while self.receipts.get(user, {}).get("delivered") != self.last_id:
            self.fail_if_failed()
            assert time.monotonic() < end, f"no final receipt: {self.receipts.get(user)}"
            time.sleep(0.02)
        return self.receipts[user]

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                try:
                    self._connection()
                except (OSError, ConnectionClosed, WebSocketException):
                    # The server is down: the address changes with its restart, so look again soon.
                    self.stopping.wait(0.05)
        except BaseException as error:  # noqa: BLE001: handed to the test
            self.failure = error

    def _connection(self) -> None:
        with Wire(self.node) as wire:
            hello = {"token": self.token, "device": self.device, "ack": self.taken, "rev": self.rev}
            wire.say(type="hello", **hello)
            assert wire.next()["type"] == "welcome"
            self.connects += 1
            for message_id, to, body in self.unanswered:
                wire.send(to, body, message_id=message_id)
            acknowledged = self.taken
            while not self.stopping.is_set():
                while self.outbox and len(self.unanswered) < UNANSWERED_MAX:
                    to, body = self.outbox.popleft()
                    self.last_id = self.ids.new()
                    self.unanswered.append((self.last_id, to, body))
                    wire.send(to, body, message_id=self.last_id, ack=self.taken)
                    acknowledged = self.taken
                try:
                    self._handle(wire._receive(0.05))
                    overdue = self.taken - acknowledged >= 64
                except TimeoutError:
                    overdue = self.taken > acknowledged
                if overdue:
                    wire.say(type="ack", seq=self.taken, rev=self.rev)
                    acknowledged = self.taken

    def _handle(self, frame: dict) -> None:
        kind = frame["type"]
        if kind == "accepted":
            # Answers come in the order of the sends, so it is the oldest.
            assert self.unanswered[0][0] == frame["id"], (self.unanswered[0], frame)
            self.unanswered.popleft()
        elif kind == "message":
            if frame["seq"] > self.taken:
                self.taken_over.append(frame["body"])
                self.seqs.append(frame["seq"])
                self.taken = frame["seq"]
        elif kind == "receipt":
            if frame["rev"] > self.rev:
                self.receipts[frame["with"]] = frame
                self.rev = frame["rev"]
        elif kind == "bye":
            pass  # a close frame follows
        else:
            raise AssertionError(f"not expected in this test: {frame}")
