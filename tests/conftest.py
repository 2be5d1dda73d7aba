"""Shared by all tests."""

import os
import signal
from collections.abc import Generator
from types import FrameType

import pytest
from hypothesis import settings

# A busy machine is no mistake in the code: no example has to be done in a given time. What CI says of a
# change must depend on the change alone: other examples are for other days.
settings.register_profile("broker", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("broker")

# A shell that runs the tests in the background has SIGINT ignored, nohup has SIGHUP, and whatever is started
# would have, too. The tests themselves go on when their terminal goes away.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:

    def _go_on(number: int, frame: FrameType | None) -> None:
        """Unlike an ignored signal, one that is handled has its default in whatever is started."""

    signal.signal(signal.SIGHUP, _go_on)


@pytest.fixture(autouse=True, scope="session")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """What a reviewer's commands remember is the test's, and not of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def anyio_backend() -> str:
    """The one event loop that the broker runs on."""
    return "asyncio"
