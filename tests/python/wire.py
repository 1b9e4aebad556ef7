"""One connection, spoken frame by frame. Written from docs/protocol.md alone."""

import json
import os
import socket
import time
from collections import deque
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import schemas
from node import DEADLINE_S, Node

SUBPROTOCOL = "stonechat.v1.json"


class Ids:
    """Message ids: UUIDs of version 7 that increase whatever the clock does."""

    def __init__(self):
        self.last = 0

    def new(self) -> str:
        random = int.from_bytes(os.urandom(10), "big")
        fresh = (time.time_ns() // 1_000_000) << 80
        fresh |= 0x7 << 76 | (random >> 68 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1
        self.last = max(fresh, self.last + 1)
        return text(self.last)


def text(number: int) -> str:
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def number(message_id: str) -> int:
    return int(message_id.replace("-", ""), 16)


class Wire:
    """A WebSocket to a node. Every frame in either direction is checked against its schema."""

    def __init__(self, node: Node, header_token: str | None = None, query: str = "", **options):
        if header_token:
            options["additional_headers"] = {"Authorization": f"Bearer {header_token}"}
        options.setdefault("subprotocols", [SUBPROTOCOL])
        self.open = ExitStack()
        self.ws = self.open.enter_context(
            connect(
                node.url + query,
                open_timeout=DEADLINE_S,
                close_timeout=DEADLINE_S,
                max_size=1 << 20,
                proxy=None,
                **options,
            )
        )
        self.waiting: deque[dict] = deque()
        self.history: list[dict] = []
        self.ids = Ids()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.open.close()

    def drop(self) -> None:
        """Ends the connection without a word, as a broken network does."""
        self.ws.socket.shutdown(socket.SHUT_RDWR)

    def say(self, **frame) -> None:
        frame = {key.rstrip("_"): value for key, value in frame.items()}
        self.ws.send(json.dumps(schemas.check("client", frame)))

    def say_raw(self, data) -> None:
        """What a correct client would not say."""
        self.ws.send(data)

    def send(self, to: str, body, message_id: str | None = None, **fields) -> str:
        message_id = message_id or self.ids.new()
        self.say(type="send", id=message_id, to={"user": to}, body=body, **fields)
        return message_id

    def _receive(self, timeout: float) -> dict:
        data = self.ws.recv(timeout=timeout)
        assert isinstance(data, str), "the server sent a binary message"
        frame = schemas.check("server", json.loads(data))
        self.history.append(frame)
        return frame

    def next(self) -> dict:
        """The next frame, whatever it is."""
        return self.waiting.popleft() if self.waiting else self._receive(DEADLINE_S)

    def expect(self, kind: str, **fields) -> dict:
        """The next frame of this type with these fields; others are kept for later."""
        fields = {key.rstrip("_"): value for key, value in fields.items()}

        def fits(frame: dict) -> bool:
            return frame["type"] == kind and all(frame.get(k) == v for k, v in fields.items())

        for index, frame in enumerate(self.waiting):
            if fits(frame):
                del self.waiting[index]
                return frame
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                frame = self._receive(max(0.0, end - time.monotonic()))
            except (TimeoutError, ConnectionClosed) as error:
                raise AssertionError(f"no {kind} {fields}: {error!r}; got {self.history}") from error
            if fits(frame):
                return frame
            self.waiting.append(frame)

    def expect_message(self, seq: int, **fields) -> dict:
        return self.expect("message", seq=seq, **fields)

    def expect_bye(self, reason: str, code: int) -> dict:
        """`bye` with this reason, then a close frame with this code and the reason as text."""
        bye = self.expect("bye")
        assert bye["reason"] == reason, bye
        try:
            late = self._receive(DEADLINE_S)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "the connection ended without a close frame"
            assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason)
            return bye
        raise AssertionError(f"a frame after bye: {late}")

    def still_open(self) -> None:
        nonce = os.urandom(4).hex()
        self.say(type="ping", nonce=nonce)
        self.expect("pong", nonce=nonce)


class Device(Wire):
    """A signed-in connection. Opening it again continues with the ids of `before`."""

    def __init__(
        self,
        node: Node,
        user: str,
        device: str,
        token: str | None = None,
        before: "Device | None" = None,
        ack: int | None = None,
        rev: int | None = None,
    ):
        # Before the connection, which has a while only to sign in.
        token = token or node.token(user)
        super().__init__(node)
        if before is not None:
            self.ids = before.ids
        hello = {"type": "hello", "token": token, "device": device}
        if ack is not None:
            hello["ack"] = ack
        if rev is not None:
            hello["rev"] = rev
        self.say(**hello)
        self.welcome = self.next()
        assert self.welcome["type"] == "welcome", self.welcome
        assert (self.welcome["user"], self.welcome["device"]) == (user, device)
