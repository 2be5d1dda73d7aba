"""`broker review` in a process of its own, and a client that keeps cookies as a browser does."""

import http.client
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from written_log import WrittenLog

BROKER = (sys.executable, "-c", "import sys; from broker.cli import main; sys.exit(main())")
LIMIT_S = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(slots=True)
class Pages:
    """A client of one server, with one session at most."""

    address: str
    cookie: str = ""
    sent: list[str] = field(default_factory=list[str])

    @property
    def base(self) -> str:
        return urlsplit(self.address).path.removesuffix("/login")

    @property
    def authority(self) -> str:
        return urlsplit(self.address).netloc

    def login(self) -> Self:
        parts = urlsplit(self.address)
        answer = self.get(f"{parts.path}?{parts.query}")
        assert answer.status == 200, answer.text
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def show(self, path: str = "/") -> Answer:
        """One of the pages."""
        return self.get(self.base + path)

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """A request, to the letter."""
        connection = http.client.HTTPConnection(self.authority, timeout=LIMIT_S)
        try:
            connection.putrequest(method, path, skip_host=True)
            all_of_them = {"Host": self.authority}
            if self.cookie:
                all_of_them["Cookie"] = self.cookie
            for name, value in (all_of_them | {n.replace("_", "-"): v for n, v in headers.items()}).items():
                connection.putheader(name, value)
            connection.endheaders()
            found = connection.getresponse()
            body = found.read().decode()
            names = {name.lower() for name, _ in found.getheaders()}
            together = {name: ", ".join(found.headers.get_all(name) or ()) for name in names}
            return Answer(status=found.status, headers=together, text=body)
        finally:
            connection.close()


@dataclass(slots=True)
class Reviewing:
    """The process."""

    process: "subprocess.Popen[str]"
    address: str

    @property
    def pages(self) -> Pages:
        """Nobody yet."""
        return Pages(self.address)

    def end(self) -> str:
        """What it said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=LIMIT_S)
        return said


@contextmanager
def reviewing(folder: Path, *arguments: str, browser: str = "true") -> Generator[Reviewing]:
    """Start it in this folder; ended with the block."""
    process = subprocess.Popen(
        [*BROKER, "review", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROWSER": browser},
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            _, said = process.communicate(timeout=LIMIT_S)
            raise AssertionError(said)
        yield Reviewing(process, address)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=LIMIT_S)


def looks(log: WrittenLog) -> Sequence[tuple[str, str | None]]:
    """View and call of each look in the log."""
    connection = sqlite3.connect(log.store)
    try:
        return connection.execute(
            "SELECT json_extract(body, '$.view'), json_extract(body, '$.of') FROM record"
            " WHERE event = 'reviewed' ORDER BY idx"
        ).fetchall()
    finally:
        connection.close()
