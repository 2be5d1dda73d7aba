"""A folder with a tools.toml, a backend that it names, and brokers that end with the test."""

from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import anyio
import pytest
from broker_process import Backend, Place, Served, serve_backend, start_broker
from holders import Holders, holders, started


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop a module, so that a backend can outlive a test."""
    return "asyncio"


@pytest.fixture
async def backend() -> AsyncGenerator[Backend]:
    """An HTTP server on loopback, in the test's own loop."""
    kept = Backend()
    async with serve_backend(kept):
        yield kept


@pytest.fixture
def place(tmp_path: Path, backend: Backend) -> Place:
    """The folder, with a good tools.toml."""
    made = Place(folder=tmp_path, backend=backend)
    made.write()
    return made


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
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """One broker for many refusals: nothing listens where its backend should be."""
    place = Place(folder=tmp_path_factory.mktemp("quiet"), backend=Backend(url="http://127.0.0.1:9"))
    place.write()
    served = start_broker(place)
    yield served
    served.end()


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """One broker and one backend for a module."""
    async with serve_backend(Backend()) as backend:
        place = Place(folder=tmp_path_factory.mktemp("shared"), backend=backend)
        place.write()
        served = start_broker(place)
        yield served
        backend.release.set()
        await anyio.to_thread.run_sync(served.end)


@pytest.fixture
def served(shared: Served) -> Served:
    """The module's broker, with a backend that has seen nothing yet."""
    backend = shared.place.backend
    backend.seen.clear()
    backend.waiting.clear()
    backend.abandoned.clear()
    backend.release = anyio.Event()
    return shared


@pytest.fixture(scope="module")
async def holding(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """A broker whose backends are clients of it, and one backend for both, for a module."""
    async with started(tmp_path_factory.mktemp("holding")) as served:
        yield served


@pytest.fixture
async def held(holding: Served) -> AsyncGenerator[Holders]:
    """Who holds tokens of it, with a session of its own."""
    async with holders(holding) as found:
        yield found
