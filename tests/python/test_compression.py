"""Answers of the admin listener are compressed for whoever takes that, and events never."""

import gzip
import json
import urllib.error
import urllib.request

import pytest

from node import DEADLINE_S, Node


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("compression")).start()
    try:
        for n in range(50):
            node.add_user(f"somebody-{n}")
        yield node
    finally:
        node.stop()


def get(node: Node, path: str, takes: str | None) -> tuple[str | None, bytes]:
    """The coding of the answer, and its body as it came."""
    request = urllib.request.Request(f"http://{node.admin_listen}{path}")
    secret = (node.data / "admin.secret").read_text(encoding="utf-8").strip()
    request.add_header("Authorization", f"Bearer {secret}")
    if takes:
        request.add_header("Accept-Encoding", takes)
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return answer.headers["Content-Encoding"], answer.read()


@pytest.mark.parametrize("path", ["/admin/v1/users", "/admin/v1/openapi.json", "/dashboard/app.js"])
def test_what_is_long_goes_compressed_and_says_the_same(node, path):
    coding, plain = get(node, path, None)
    assert coding in (None, "identity")
    coding, packed = get(node, path, "gzip, deflate")
    assert coding == "gzip"
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 2


def test_metrics_are_read_by_a_scraper_that_takes_gzip(node):
    coding, packed = get(node, "/metrics", "gzip")
    assert coding == "gzip"
    assert b"stonechat_build_info{" in gzip.decompress(packed)


def test_events_come_as_they_happen(node):
    coding, told = get(node, "/admin/v1/events?wait=false", "gzip")
    assert coding in (None, "identity")
    assert b"\x1f\x8b" not in told
    # Each as soon as it is there: with one asked for, the answer ends with it.
    path = "/admin/v1/events?count=1&kinds=security"
    for_nobody = urllib.request.Request(f"http://{node.admin_listen}/admin/v1/users")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(for_nobody, timeout=DEADLINE_S)
    coding, told = get(node, path + "&after=0", "gzip")
    event = next(line for line in told.decode().splitlines() if line.startswith("data: "))
    assert json.loads(event.removeprefix("data: "))["kind"] == "security"
