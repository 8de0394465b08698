"""A daemon over a wire of this process, with a backend that records what it is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from links import FakeBackend, Wire, served

from firmware_bridge.daemon.server import Daemon


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def daemon(backend: FakeBackend, wire: Wire) -> Iterator[Daemon]:
    """With a lease that no test here outlasts."""
    with served(backend, wire, lease_s=60.0) as found:
        yield found
