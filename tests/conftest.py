"""Shared by all tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The one event loop that the broker runs on."""
    return "asyncio"
