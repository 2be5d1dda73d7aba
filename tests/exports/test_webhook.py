"""The webhook, and with it what holds of every exporter: at least once, in order, and nobody waits."""

import json
import logging
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from receivers import (
    NOW_MS,
    HttpReceiver,
    Waits,
    append,
    exporter,
    exporting,
    http_receiver,
    kept_cursor,
    open_log,
    sending,
    until_kept,
    webhook,
)
from written_log import calls

from broker.store.connection import Connection

verifiers: Any = import_module("standardwebhooks")

pytestmark = pytest.mark.anyio


async def test_records_arrive_whole_and_in_the_order_of_the_log(tmp_path: Path) -> None:
    async with sending(tmp_path, calls(25), batch=7) as (store, receiver):
        await until_kept(store, 50)
    assert receiver.indexes() == list(range(50))
    first = json.loads(receiver.taken[0].splitlines()[0])
    assert first["sub"] == "alice"
    assert first["log"] == {"origin": store.origin, "index": 0}
    assert [len(body.splitlines()) for body in receiver.taken] == [7] * 7 + [1]


async def test_what_is_written_later_is_sent_by_itself(tmp_path: Path) -> None:
    async with sending(tmp_path, ()) as (store, receiver):
        await append(store, calls(3))
        await receiver.until(lambda: len(receiver.indexes()) == 6)
        await append(store, calls(2))
        await receiver.until(lambda: len(receiver.indexes()) == 10)
    assert receiver.indexes() == list(range(10))


async def test_who_is_behind_takes_a_breath_and_who_keeps_up_looks_once_a_second(tmp_path: Path) -> None:
    waits = Waits()
    async with sending(tmp_path, calls(10), batch=8, waits=waits) as (store, _):
        await until_kept(store, 20)
        await waits.until(5)
    assert waits.wanted[:5] == [0.02, 0.02, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("behaviour", [500, 503, 429, 408, "die", "die in the middle"])
async def test_a_batch_that_was_not_taken_is_sent_again_before_any_other(
    tmp_path: Path, behaviour: int
) -> None:
    receiver = HttpReceiver(behaves=[200, behaviour, behaviour, 200])
    async with sending(tmp_path, calls(10), receiver, batch=5) as (store, _):
        await until_kept(store, 20)
    assert receiver.indexes() == list(range(20))
    assert receiver.posts[1][1] == receiver.posts[2][1] == receiver.posts[3][1]
    assert receiver.posts[1][0]["webhook-id"] == receiver.posts[3][0]["webhook-id"]
    assert receiver.posts[0][0]["webhook-id"] != receiver.posts[1][0]["webhook-id"]


async def test_each_failure_waits_longer_than_the_one_before_up_to_a_bound(tmp_path: Path) -> None:
    waits = Waits()
    receiver = HttpReceiver(behaves=[500] * 14)
    async with sending(tmp_path, calls(1), receiver, waits=waits) as (store, _):
        await until_kept(store, 2)
    # Three quarters of 1, 2, 4, … seconds, for the chance is a half.
    assert waits.wanted[:14] == [0.75 * min(300.0, 2.0**number) for number in range(14)]


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [
        ("120", 120.0),
        ("Mon, 21 Sep 2026 14:15:20 GMT", 120.0),
        ("999999999", 3600.0),
        ("0", 0.75),
        ("soon", 0.75),
    ],
)
async def test_a_receiver_that_asks_for_time_gets_it_within_bounds(
    tmp_path: Path, retry_after: str, waited: float
) -> None:
    waits = Waits()
    receiver = HttpReceiver(behaves=[(429, {"Retry-After": retry_after})])
    async with sending(tmp_path, calls(1), receiver, waits=waits) as (store, _):
        await until_kept(store, 2)
    assert waits.wanted[0] == waited


async def test_a_date_that_no_clock_can_show_asks_for_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    far = "Mon, 21 Sep 2026 14:15:20 +99999999999999999"
    receiver = HttpReceiver(behaves=[(429, {"Retry-After": far})])
    async with sending(tmp_path, calls(1), receiver, waits=Waits()) as (store, _):
        await until_kept(store, 2)
    assert "answered with status 429" in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_receiver_that_says_no_is_asked_again_after_a_long_while_and_nothing_is_skipped(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits()
    receiver = HttpReceiver(behaves=[status])
    async with sending(tmp_path, calls(1), receiver, waits=waits) as (store, _):
        await until_kept(store, 2)
        await waits.until(2)
    assert waits.wanted[0] == 600.0
    assert receiver.indexes() == [0, 1]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"export siem: the receiver answered with status {status}; nothing is lost, it waits at record 0",
        "export siem: goes on",
    ]


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    receiver = HttpReceiver()
    async with http_receiver() as elsewhere:
        receiver.behaves.append((307, {"Location": elsewhere.url}))
        async with sending(tmp_path, calls(1), receiver) as (store, _):
            await until_kept(store, 2)
        assert elsewhere.posts == []
    assert receiver.indexes() == [0, 1]


async def test_a_batch_that_is_too_large_is_halved_until_it_fits(tmp_path: Path) -> None:
    receiver = HttpReceiver(behaves=[413, 413])
    async with sending(tmp_path, calls(4), receiver, batch=8) as (store, _):
        await until_kept(store, 8)
    assert [len(body.splitlines()) for _, body in receiver.posts] == [8, 4, 2, 2, 2, 2]


async def test_a_receiver_that_hangs_is_given_up_and_asked_again(tmp_path: Path) -> None:
    receiver = HttpReceiver(behaves=["hang"])
    async with sending(tmp_path, calls(1), receiver, hook={"timeout_s": 0.2}) as (store, _):
        await until_kept(store, 2)
    assert receiver.indexes() == [0, 1]


async def test_a_receiver_that_is_not_there_yet_gets_everything_once_it_is(tmp_path: Path) -> None:
    async with http_receiver() as gone:
        url = gone.url
    waits = Waits()
    async with open_log(tmp_path, calls(1)) as store:
        made = exporter(store, tmp_path, webhook(url), waits=waits)
        async with exporting(made):
            await waits.until(3)
            assert await kept_cursor(store) == 0


async def test_the_cursor_survives_and_nothing_that_was_taken_is_sent_again(tmp_path: Path) -> None:
    receiver = HttpReceiver()
    for count in (10, 20):
        async with sending(tmp_path, calls(5), receiver) as (store, _):
            await until_kept(store, count)
    assert receiver.indexes() == list(range(20))


async def test_who_begins_now_is_sent_nothing_older_also_after_a_restart(tmp_path: Path) -> None:
    receiver = HttpReceiver()
    async with sending(tmp_path, calls(5), receiver, begin="now") as (store, _):
        await until_kept(store, 10)
    async with open_log(tmp_path, calls(1)):
        pass
    async with sending(tmp_path, calls(1), receiver, begin="now") as (store, _):
        await until_kept(store, 14)
    assert receiver.indexes() == [10, 11, 12, 13]


async def test_a_stuck_receiver_leaves_the_other_exporters_and_the_log_alone(tmp_path: Path) -> None:
    stuck = HttpReceiver(behaves=["hang"])
    hook = {"timeout_s": 300}
    async with (
        sending(tmp_path, calls(1), stuck, name="stuck", hook=hook) as (store, _),
        http_receiver() as other,
        exporting(exporter(store, tmp_path, webhook(other.url), name="other")),
    ):
        await stuck.until(lambda: len(stuck.posts) == 1)
        await append(store, calls(20))
        await until_kept(store, 42, "other")
        assert not stuck.release.is_set()
        assert await kept_cursor(store, "stuck") == 0


async def test_an_old_copy_of_the_log_put_back_is_said_and_nothing_is_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits()

    def ahead(connection: Connection) -> None:
        connection.execute("INSERT INTO exported VALUES ('siem', 99)")

    async with http_receiver() as receiver, open_log(tmp_path, calls(1)) as store:
        await store.ask(ahead)
        async with exporting(exporter(store, tmp_path, webhook(receiver.url), waits=waits)):
            await waits.until(1)
    assert receiver.posts == []
    assert "the log has 2 records, and 99 were sent" in caplog.text


async def test_records_that_were_moved_away_before_they_were_sent_are_named_in_their_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def archive(connection: Connection) -> None:
        connection.execute("DROP TRIGGER record_no_delete")
        connection.execute("DELETE FROM record WHERE idx < 6")

    receiver = HttpReceiver(behaves=[503, 503])
    async with http_receiver(receiver), open_log(tmp_path, calls(5)) as store:
        await store.ask(archive)
        async with exporting(exporter(store, tmp_path, webhook(receiver.url))):
            await until_kept(store, 10)
    lines = [json.loads(line) for line in receiver.taken[0].splitlines()]
    assert lines[0]["event"] == "export.gap"
    assert (lines[0]["first"], lines[0]["last"]) == (0, 5)
    assert [line["log"]["index"] for line in lines[1:]] == [6, 7, 8, 9]
    assert caplog.text.count("records 0 to 5 are not in the log any more and were not sent") == 1


async def test_what_is_signed_is_what_another_library_verifies(tmp_path: Path) -> None:
    secret = "whsec_" + "c2VjcmV0IG9mIHRoZSBob29rLCAzMiBieXRlcyBsb25n"
    (tmp_path / "hook.secret").write_text(secret + "\n")
    now = time.time_ns() // 1_000_000
    async with http_receiver() as receiver, open_log(tmp_path, calls(1)) as store:
        to = webhook(receiver.url, secret_file=str(tmp_path / "hook.secret"), body="array")
        async with exporting(exporter(store, tmp_path, to, now_ms=lambda: now)):
            await until_kept(store, 2)
    headers, body = receiver.posts[0]
    told = verifiers.Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})
    assert [record["log"]["index"] for record in told] == [0, 1]
    assert headers["Content-Type"] == "application/json"


async def test_headers_come_from_a_file_that_may_change_and_no_secret_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "hook.headers"
    file.write_text("# of the receiver\nAuthorization: Splunk old-secret\n")
    receiver = HttpReceiver(behaves=[401])

    def renew(count: int) -> None:
        if count == 1:
            file.write_text("Authorization: Splunk new-secret\n")

    receiver.on_post = renew
    async with sending(tmp_path, calls(1), receiver, hook={"headers_file": str(file)}) as (store, _):
        await until_kept(store, 2)
    assert [headers["Authorization"] for headers, _ in receiver.posts] == [
        "Splunk old-secret",
        "Splunk new-secret",
    ]
    assert "secret" not in caplog.text


async def test_over_tls_the_receiver_must_show_a_certificate_that_is_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority.make(tmp_path, "authority")
    waits = Waits()
    async with (
        http_receiver(ssl_context=authority.server()) as receiver,
        open_log(tmp_path, calls(1)) as store,
    ):
        distrusting = exporter(store, tmp_path, webhook(receiver.url), name="other", waits=waits)
        async with exporting(distrusting):
            await waits.until(1)
        assert receiver.posts == []
        trusting = webhook(receiver.url, ca_file=str(authority.file))
        async with exporting(exporter(store, tmp_path, trusting)):
            await until_kept(store, 2)
    assert "export other: the receiver's certificate is not trusted" in caplog.text
    assert "127.0.0.1" not in caplog.text


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("headers_file", "Authorization Splunk s3cr3t\n", "line 1 is not `Name: value`"),
        ("secret_file", "s3cr3t", "it holds no `whsec_`"),
        ("secret_file", "whsec_c2hvcnQ=", "it holds no `whsec_`"),
        ("secret_file", None, "No such file"),
    ],
)
async def test_a_file_of_secrets_that_is_wrong_is_said_without_what_is_in_it(
    tmp_path: Path, file: str, text: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits()
    if text is not None:
        (tmp_path / "file").write_text(text)
    async with http_receiver() as receiver, open_log(tmp_path, calls(1)) as store:
        to = webhook(receiver.url, **{file: str(tmp_path / "file")})
        async with exporting(exporter(store, tmp_path, to, waits=waits)):
            await waits.until(1)
    assert why in caplog.text
    assert "s3cr3t" not in caplog.text
    assert receiver.posts == []
    assert waits.wanted[0] == 600.0


async def test_a_defect_in_one_exporter_is_its_own_and_is_said_by_its_name_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits()

    def broken() -> int:
        raise RuntimeError("the secret is s3cr3t")

    async with http_receiver() as receiver, open_log(tmp_path, calls(1)) as store:
        made = exporter(store, tmp_path, webhook(receiver.url), waits=waits, now_ms=broken)
        made.now_ms = lambda: NOW_MS
        async with exporting(made):
            await waits.until(1)
    assert "a defect: RuntimeError" in caplog.text
    assert "s3cr3t" not in caplog.text


async def test_trouble_that_comes_and_goes_with_each_batch_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = HttpReceiver(behaves=[503, 200] * 10)
    async with sending(tmp_path, calls(10), receiver, batch=2) as (store, _):
        await until_kept(store, 20)
    assert [record.getMessage() for record in caplog.records] == [
        "export siem: the receiver answered with status 503; nothing is lost, it waits at record 0",
        "export siem: goes on",
    ]


async def test_far_behind_is_said_once_and_not_at_each_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.exports.exporter.FAR_BEHIND", 10)
    caplog.set_level(logging.WARNING)
    async with sending(tmp_path, calls(20), batch=5) as (store, _):
        await until_kept(store, 40)
    assert [record.getMessage() for record in caplog.records] == ["export siem: 40 records behind"]
