"""The peers, and a broker with a backend for them to be held against."""

from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import anyio
import peers as installed
import pytest
from broker_process import Backend, Place, Served, serve_backend, start_broker
from peers import Peers


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop a module, so that a backend and a peer can outlive a test."""
    return "asyncio"


@pytest.fixture(scope="session")
def peers() -> Peers:
    """What others wrote in JavaScript."""
    installed.install()
    return Peers()


@pytest.fixture
async def backend() -> AsyncGenerator[Backend]:
    """An HTTP server on loopback, in the test's own loop."""
    async with serve_backend(Backend()) as kept:
        yield kept


@pytest.fixture
def place(tmp_path: Path, backend: Backend) -> Place:
    """A folder for a tools.toml, which the test writes."""
    return Place(folder=tmp_path, backend=backend)


@pytest.fixture
def serve(place: Place) -> Generator[Callable[..., Served]]:
    """Start `broker serve`, and end it with the test."""
    started: list[Served] = []

    def start(*arguments: str) -> Served:
        served = start_broker(place, *arguments)
        started.append(served)
        return served

    yield start
    for served in started:
        served.end()


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """One broker and one backend for a module."""
    async with serve_backend(Backend()) as backend:
        place = Place(folder=tmp_path_factory.mktemp("shared"), backend=backend)
        place.write()
        served = start_broker(place)
        yield served
        await anyio.to_thread.run_sync(served.end)


@pytest.fixture
def served(shared: Served) -> Served:
    """The module's broker, with a backend that has seen nothing yet."""
    shared.place.backend.seen.clear()
    return shared
