"""Shared by all tests."""

import pytest
from hypothesis import settings

# A busy machine is no mistake in the code: no example has to be done in a given time.
settings.register_profile("broker", deadline=None)
settings.load_profile("broker")


@pytest.fixture
def anyio_backend() -> str:
    """The one event loop that the broker runs on."""
    return "asyncio"
