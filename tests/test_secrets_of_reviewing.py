"""No secret lies about where a log is shown, sent, proven, archived; what was erased is in no file of it."""

from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from anchor_places import answering, collecting
from broker_process import Backend, serve_backend
from life import Life, forms
from life_of_reviewing import CLEAR, KEPT, REFUSED, UNERASED, Outside, Reviewed
from receivers import http_receiver
from served_pages import provider
from syslog_ear import Udp

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop, for the life that all tests here look at."""
    return "asyncio"


@pytest.fixture(scope="module")
async def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Reviewed:
    folder, out, home = (tmp_path_factory.mktemp(name) for name in ("folder", "out", "home"))
    told: list[web.Request] = []

    async def keep(request: web.Request) -> web.Response:
        told.append(request)
        return web.Response(status=204)

    async with AsyncExitStack() as stack:
        outside = Outside(
            backend=await stack.enter_async_context(serve_backend(Backend())),
            provider=stack.enter_context(provider()),
            hook=await stack.enter_async_context(http_receiver()),
            lake=await stack.enter_async_context(http_receiver()),
            collector=await stack.enter_async_context(http_receiver()),
            syslog=Udp(),
            notes=await stack.enter_async_context(collecting("udp", out)),
            keeper=await stack.enter_async_context(answering(keep)),
            told=told,
        )
        made = Reviewed(life=Life(), folder=folder, out=out, home=home, outside=outside)
        stack.callback(outside.syslog.listener.close)
        await made.all()
    return made


def places_of(life: Life, needle: bytes) -> list[str]:
    return [where for where, what in life.seen if needle in what]


async def test_the_life_was_one(reviewed: Reviewed) -> None:
    """What follows would find nothing in nothing."""
    where = {where for where, _ in reviewed.life.seen}
    for wanted in (
        "at the end, folder0: broker.db", "at the end, folder0: broker.db-review",
        "while it runs: broker.db-wal",
        "at the end, folder0: old.db", "at the end, out0: command", "at the end, out0: volume",
        "at the end, out0: proof", "at the end, out0: tiles/checkpoint", "at the end, home0: state/broker",
        "at the end, folder0: broker.db.export-hook.lock", "received by hook", "received by lake",
        "received by collector", "received by syslog", "a page, /calls.csv",
        "/proc: cmdline of broker review",
    ):  # fmt: skip
        assert any(wanted in each for each in where), wanted
    assert len(reviewed.life.secrets) > 30
    assert {"key witness.pem", "key log.pem", "ID token 0", "token 0"} < reviewed.life.secrets.keys()


async def test_no_secret_is_in_anything_that_was_shown_sent_or_kept(reviewed: Reviewed) -> None:
    everything = b"\0".join(what for _, what in reviewed.life.seen)
    found = [
        f"{name} ({form}) in {places_of(reviewed.life, needle)}"
        for name, secret in reviewed.life.secrets.items()
        for form, needle in forms(name, secret)
        if needle in everything
    ]
    assert found == []


async def test_what_was_erased_is_in_no_file_of_the_log_while_a_broker_runs_and_after(
    reviewed: Reviewed,
) -> None:
    for erased in reviewed.erased:
        left = places_of(reviewed.life, erased.encode())
        assert [each for each in left if each.startswith(("while it runs: ", "at the end, folder"))] == []


async def test_what_was_sent_before_stays_where_it_was_sent_in_clear_and_nowhere_else(
    reviewed: Reviewed,
) -> None:
    """An exporter with `private = true`, a proof, and what a reviewer was shown: copies, by design."""
    for kept in (KEPT, UNERASED):
        places = places_of(reviewed.life, kept.encode())
        sent = {place for place in places if place.startswith("received by")}
        assert sent == {"received by hook"}
        files = {place.partition(": ")[2].partition("/")[0] for place in places if ", out0: " in place}
        assert files <= {"files", "proof", "another.proof"}
        assert "files" in files
    assert set(CLEAR) == {"files", "hook"}


async def test_a_refused_argument_is_kept_apart_too(reviewed: Reviewed) -> None:
    sent = {each for each in places_of(reviewed.life, REFUSED.encode()) if each.startswith("received by")}
    assert sent <= {"received by hook"}
