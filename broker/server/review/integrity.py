"""How far the log can be believed: what is signed, by which key, and how many records came since."""

import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from broker.anchoring import AnchorState
from broker.checkpoint import LogVerifier, open_note
from broker.errors import LogTampered
from broker.merkle import Head
from broker.plain_text import plain
from broker.record import timestamp
from broker.server.review.files import File
from broker.server.review.frame import Page
from broker.server.review.html import Child, Markup, element, said
from broker.server.review.seen import Seen
from broker.store import anchored, history, wholeness

_SHOWN = 10
_MOST_ANCHORS = 32

Verdict: TypeAlias = Literal["holds", "wrong", "unchecked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint that lies beside the records."""

    size: int
    note: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What can be said without hashing every record.

    Attributes:
        newest: the checkpoints, the newest first, up to `_SHOWN`.
        checkpoints: how many there are.
    """

    origin: str
    head: Head
    newest: tuple[Signed, ...]
    checkpoints: int
    archived: int
    witnessed: tuple[tuple[str, int], ...]
    anchors: tuple[AnchorState, ...]
    key: LogVerifier | None

    @property
    def since(self) -> int:
        """Records that no checkpoint beside the log covers."""
        return self.head.size - (self.newest[0].size if self.newest else 0)

    @property
    def contradiction(self) -> str:
        """What is wrong, in a sentence; empty where nothing is, as far as this can tell."""
        for each in self.newest:
            if each.verdict == "wrong":
                return each.why
        if self.newest and self.newest[0].size > self.head.size:
            return (
                f"the log has {self.head.size} records; a checkpoint says that it had {self.newest[0].size}"
            )
        return ""


def state_of(connection: sqlite3.Connection, key: LogVerifier | None) -> State:
    """Look at what is signed.

    1. Each checkpoint shown is one of this log, of the size that it is kept under, and signed by its key.
    2. Where the stored head knows the root at that size, the checkpoint has the same.

    Raises:
        LogTampered: the head is none.
    """
    head = wholeness.stored_head(connection)
    known = dict(head.beginnings())
    rows = connection.execute(
        "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT ?", (_SHOWN,)
    ).fetchall()
    newest = tuple(_judged(int(size), str(note), key, known) for size, note in rows)
    (count,) = connection.execute("SELECT count(*) FROM checkpoint").fetchone()
    has_more = history.version(connection) >= 3  # noqa: PLR2004 - the version with archives and witnesses
    archived, witnessed = 0, list[tuple[str, int]]()
    if has_more:
        (archived,) = connection.execute("SELECT coalesce(max(size), 0) FROM archived").fetchone()
        witnessed = connection.execute(
            "SELECT origin, size FROM witnessed ORDER BY origin LIMIT 20"
        ).fetchall()
    return State(
        origin=history.origin(connection),
        head=head,
        newest=newest,
        checkpoints=int(count),
        archived=int(archived),
        witnessed=tuple(witnessed),
        anchors=tuple(anchored.states_of(connection)[:_MOST_ANCHORS]),
        key=key,
    )


def _judged(size: int, note: str, key: LogVerifier | None, known: dict[int, bytes]) -> Signed:
    if key is None:
        return Signed(size=size, note=note, verdict="unchecked", why="the log's key is not known here")
    try:
        # 1. Signed.
        found = open_note(note, key)
        if found.size != size:
            raise LogTampered(f"the checkpoint of {found.size} records is kept as one of {size}")
        # 2. The same root.
        if size in known and known[size] != found.root:
            raise LogTampered(f"the stored head has another root for {size} records than their checkpoint")
    except LogTampered as tampered:
        return Signed(size=size, note=note, verdict="wrong", why=tampered.message)
    return Signed(size=size, note=note, verdict="holds")


def show(seen: Seen, key: LogVerifier | None) -> Page:
    """The state of the log's integrity."""
    state = state_of(seen.connection, key)
    return Page(
        title="Integrity",
        place="integrity",
        body=element(
            "div",
            _verdict(state),
            element("dl", list(_facts(state)), class_="facts"),
            _checkpoints(state),
            element("h2", "What this page does not do"),
            element(
                "p",
                "It hashes no record again, and knows only what lies beside the log. ",
                element("code", "broker log verify"),
                " does the first; with ",
                element("code", "--checkpoint"),
                " it also compares one that was kept elsewhere, which is what shows a log that was cut or "
                "replaced as a whole.",
            ),
            element(
                "p",
                "This state: ",
                seen.link("JSON lines", f"{seen.base}/integrity.jsonl", download=""),
                " ",
                seen.link("CSV", f"{seen.base}/integrity.csv", download=""),
                class_="downloads",
            ),
        ),
    )


def _verdict(state: State) -> Markup:
    if why := state.contradiction:
        return element(
            "p",
            element("span", "✕ ", aria_hidden="true"),
            said(f"Something is wrong: {why}."),
            class_="wrong",
        )
    if not state.newest:
        return element(
            "p", "No checkpoint has been signed yet: nothing vouches for these records.", class_="wrong"
        )
    if state.newest[0].verdict == "unchecked":
        return element(
            "p", "Signatures are not checked: the log's key is not known here. Give it with --key."
        )
    mark = element("span", "✓ ", aria_hidden="true")
    return element("p", mark, "The newest checkpoint is signed by the log's key.", class_="good")


def _facts(state: State) -> Iterable[Markup]:
    yield _fact("Log", said(state.origin))
    yield _fact("Records", str(state.head.size))
    yield _fact("Root now", element("code", state.head.root.hex()))
    if state.newest:
        yield _fact("Newest checkpoint", f"over {state.newest[0].size} records")
    yield _fact("Records since", f"{state.since}, which only the next checkpoint will cover")
    yield _fact("Checkpoints beside the log", str(state.checkpoints))
    yield _fact("Key", element("code", said(str(state.key)) if state.key else "not known here"))
    if state.archived:
        yield _fact("Moved to archives", f"the first {state.archived} records")
    for anchor in state.anchors:
        yield _fact(f"Anchor {plain(anchor.name, 60)}", said(_told(anchor, state.head.size), 300))
    for origin, size in state.witnessed:
        yield _fact("Cosigned here", said(f"{origin}, {size} records"))


def _told(anchor: AnchorState, size: int) -> str:
    """How far it was told; what it was not told is said as a number."""
    when = "" if anchor.told_ms is None else f" at {timestamp(anchor.told_ms)}"
    told = f"told of {anchor.size} records{when}" if anchor.size is not None else "told of nothing yet"
    problem = f"; the last try failed: {anchor.problem}" if anchor.problem else ""
    return f"{anchor.kind}: {told}, {size - (anchor.size or 0)} since then{problem}"


def _fact(name: str, value: Child) -> Markup:
    return element("div", element("dt", name), element("dd", value))


def _checkpoints(state: State) -> Markup:
    words = {"holds": "✓ holds", "wrong": "✕ wrong", "unchecked": "not checked"}
    rows = [
        element(
            "tr",
            element("th", str(each.size), scope="row", class_="number"),
            element("td", words[each.verdict], class_="good" if each.verdict == "holds" else "wrong"),
            element(
                "td",
                element(
                    "pre",
                    [element("span", said(line, 200), class_="line") for line in each.note.splitlines()[:8]],
                ),
            ),
        )
        for each in state.newest
    ]
    heads = ("Records", "Signature", "The note, to keep elsewhere")
    return element(
        "section",
        element("h2", "Checkpoints", id="checkpoints"),
        element(
            "div",
            element(
                "table",
                element("caption", "The newest first"),
                element("thead", element("tr", [element("th", head, scope="col") for head in heads])),
                element("tbody", rows),
            ),
            class_="wide",
            role="region",
            aria_label="The newest checkpoints",
            tabindex="0",
        ),
        aria_labelledby="checkpoints",
    )


def file(seen: Seen, key: LogVerifier | None) -> File:
    """The checkpoints, as a file: keep it elsewhere, and `broker log verify --checkpoint` can compare."""
    state = state_of(seen.connection, key)
    return File(
        name="integrity",
        columns=("records", "signature", "note"),
        rows=[(each.size, each.verdict, each.note) for each in state.newest],
        objects=[
            {
                "origin": state.origin,
                "size": state.head.size,
                "root": state.head.root.hex(),
                "since": state.since,
                "key": None if key is None else str(key),
                "wrong": state.contradiction or None,
                "anchors": [asdict(each) for each in state.anchors],
                "checkpoints": [
                    {"size": each.size, "signature": each.verdict, "note": each.note} for each in state.newest
                ],
            }
        ],
    )
