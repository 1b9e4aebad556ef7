"""A real server process in a temporary directory, and its admin API."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

# Longest any single wait may take; generous, because the machine may be busy with other suites.
DEADLINE_S = 120.0
POLL_S = 0.02


def binary() -> Path:
    named = os.environ.get("STONECHAT_BIN")
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    candidates = [Path(named)] if named else [target / "debug/stonechat", target / "release/stonechat"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise FileNotFoundError(f"none of {candidates}: build with `cargo build -p stonechat`")


def wait_for(what: str, condition):
    """Polls until `condition` returns something true, and returns it."""
    end = time.monotonic() + DEADLINE_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {DEADLINE_S} s in vain for {what}"
        time.sleep(POLL_S)


class Node:
    def __init__(self, directory: Path, settings: dict | None = None, under: tuple = ()):
        """`under`: a command that starts the server and stays out of its way, such as a tracer."""
        self.directory = directory
        self.under = under
        self.data = directory / "data"
        self.log = directory / "node.log"
        self.process: subprocess.Popen | None = None
        self.listen = self.admin_listen = ""
        lines = [f"{key} = {json.dumps(value)}" for key, value in (settings or {}).items()]
        self.config = directory / "stonechat.toml"
        self.config.write_text("\n".join(['log.format = "json"', *lines]) + "\n", encoding="utf-8")

    def start(self) -> "Node":
        assert self.process is None
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("STONECHAT_", "RUST_LOG"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.under,
                    binary(),
                    "serve",
                    "--config",
                    self.config,
                    "--data-dir",
                    self.data,
                    "--listen",
                    "127.0.0.1:0",
                    "--admin-listen",
                    "127.0.0.1:0",
                ],
                cwd=self.directory,
                env=clean,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("the server to be ready", self._ready)
        return self

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"the server ended: {self.tail()}"
        try:
            told = json.loads((self.data / "node.json").read_text(encoding="utf-8"))
            if told["pid"] != self.process.pid:
                return False  # left behind by a killed predecessor
            self.listen, self.admin_listen = told["listen"], told["admin_listen"]
            status, _ = self.request("GET", "/readyz", secret=False)
            return status == 200
        except (OSError, ValueError):
            return False

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def kill(self) -> None:
        """`kill -9`: no chance to write anything more."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.process = None

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_S)
        self.process = None
        return code

    def stop(self) -> None:
        if self.process is not None:
            self.kill()
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            assert '"level":"ERROR"' not in line, f"the server logged an error: {line}"

    @property
    def url(self) -> str:
        return f"ws://{self.listen}/v1/ws"

    def request(self, method: str, path: str, body: dict | None = None, secret: bool = True):
        request = urllib.request.Request(f"http://{self.admin_listen}{path}", method=method)
        if secret:
            held = (self.data / "admin.secret").read_text(encoding="utf-8").strip()
            request.add_header("Authorization", f"Bearer {held}")
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=DEADLINE_S) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            status, text = refusal.code, refusal.read()
        try:
            return status, json.loads(text) if text else None
        except ValueError:
            return status, text.decode(errors="replace")

    def admin(self, method: str, path: str, body: dict | None = None):
        status, answer = self.request(method, f"/admin/v1{path}", body)
        assert 200 <= status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def add_user(self, user: str) -> None:
        self.admin("POST", "/users", {"user": user})

    def token(self, user: str, **fields) -> str:
        return self.admin("POST", f"/users/{user}/tokens", fields)["token"]
