"""Fixtures: nodes and users."""

import itertools

import pytest

from node import Node

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory):
    """One node for all tests that need no special configuration."""
    node = Node(tmp_path_factory.mktemp("shared")).start()
    yield node
    node.stop()


@pytest.fixture
def node(shared_node):
    return shared_node


@pytest.fixture
def start_node(tmp_path):
    """Starts a node with settings of its own; it ends with the test."""
    started = []

    def start(**settings) -> Node:
        directory = tmp_path / f"node{len(started)}"
        directory.mkdir()
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        fresh = Node(directory, dotted)
        started.append(fresh)
        return fresh.start()

    yield start
    for node in started:
        node.stop()


@pytest.fixture
def users():
    """Makes users with names that no other test has: `alice, bob = users(node, "alice", "bob")`."""

    def make(node: Node, *names: str) -> list[str]:
        number = next(_numbers)
        full = [f"{name}-{number}" for name in names]
        for name in full:
            node.add_user(name)
        return full

    return make
