"""One call: the chain as it is drawn, the rule, what its token says, and every event in time."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from broker.retold import happened
from broker.server.review.calls import outcome
from broker.server.review.files import PIECE, File
from broker.server.review.filters import index as index_of
from broker.server.review.frame import Page
from broker.server.review.html import Child, Markup, element, said
from broker.server.review.seen import Missing, Seen
from broker.store import history
from broker.store.history import Event

_BEGINS = frozenset({"allowed", "refused", "replayed"})
_LONG = 4000

SHOWN = 200
"""Records of one call on its page; the download has all of them."""

_CLAIMS = (
    ("iss", "the broker"),
    ("sub", "for whom"),
    ("aud", "the one backend"),
    ("client_id", "the agent that calls"),
    ("scope", "the one action"),
    ("jti", "this token"),
    ("txn", "this call"),
    ("sid", "the session"),
    ("exp", "good until"),
    ("acr", "assurance of the session"),
    ("cnf", "bound to this key"),
    ("log", "place in the log"),
)


def events_of(seen: Seen, txn: str) -> list[Event]:
    """The first records of one call, and how it went on, if this reviewer may see it. Raises Missing.

    There may be any number of others: replays of its token, by whoever has it. A call is a tenant's by the
    record that began it: those of its end and its spends say no tenant of their own where a backend wrote
    them.
    """
    events = history.call(seen.connection, txn, most=SHOWN)
    if not events:
        raise Missing
    if len(events) == SHOWN:
        events += [each for each in history.turns(seen.connection, txn) if each.index > events[-1].index]
    begins = [event for event in events if event.body["event"] in _BEGINS]
    if not all(seen.may_show(event.body) for event in begins or events):
        raise Missing
    return events


def show(seen: Seen) -> Page:
    """The call whose id stands in the address."""
    events = events_of(seen, seen.path)
    first = events[0].body
    return Page(
        title=f"Call {seen.path}",
        body=element(
            "div",
            element("p", _summary(events), class_="summary"),
            _drawn(seen, first, events),
            _timeline(seen, events),
            _left_out(seen, events),
            _token(first, events[0].index) if first["event"] == "allowed" else None,
            _records(events),
            element(
                "p",
                "All of it: ",
                seen.link("JSON lines", seen.of_call(seen.path, ".jsonl"), download=""),
                " ",
                seen.link("CSV", seen.of_call(seen.path, ".csv"), download=""),
                " ",
                seen.link("Proof", seen.of_call(seen.path, ".tlog-proof"), download=""),
                class_="downloads",
            ),
        ),
        place="call",
    )


def _left_out(seen: Seen, events: Sequence[Event]) -> Markup | None:
    if len(events) < SHOWN or (count := history.count_of_call(seen.connection, seen.path)) == len(events):
        return None
    return element(
        "p", f"{count - len(events)} more of its {count} records are in the download.", class_="note"
    )


def how_it_ended(events: Sequence[Event]) -> str:
    """In one word."""
    first = events[0].body
    if any(event.body["event"] == "replayed" for event in events):
        return "replayed"
    if first["event"] != "allowed":
        return str(first["event"])
    for event in events:
        if event.body["event"] == "ended":
            return str(event.body.get("outcome"))
    return "unfinished"


def _summary(events: Sequence[Event]) -> Markup:
    first = events[0].body
    what = first.get("rule") if first["event"] == "allowed" else first.get("reason")
    tool = element("span", said(first.get("tool", "")), class_="tool")
    return element("span", outcome(how_it_ended(events)), " ", tool, " ", said(what or "", 600))


def _drawn(seen: Seen, first: Mapping[str, Any], events: Sequence[Event]) -> Markup:
    """From whom the work is done to where it is done, one box each. It is read as a list."""
    boxes: list[Markup] = []
    if "sub" in first:
        name = str(first["sub"])
        link = seen.link(said(name, 80), seen.address("who", subject=name))
        boxes.append(_box("subject", "Subject", link, said(first.get("sub_iss", ""))))
        hops = _hops(first)
        for place, hop in enumerate(hops):
            actor = str(hop.get("sub"))
            last = place == len(hops) - 1
            shown: Child = said(actor, 80)
            if last:
                shown = seen.link(shown, seen.address("who", agent=actor))
            boxes.append(_box("agent", "Agent, calls" if last else "Agent", shown, said(hop.get("iss", ""))))
    else:
        boxes.append(_box("subject", "Subject", said("unknown"), said(first.get("peer", ""))))
    decided = first.get("rule") or first.get("code") or ""
    went_on = first["event"] == "allowed"
    boxes.append(
        _box(
            "broker" if went_on else "broker stopped",
            "Broker",
            said("allowed by" if went_on else str(first["event"])),
            element("code", said(decided)),
        )
    )
    if "backend" in first or "aud" in first:
        where = said(first.get("aud") or first.get("backend"), 120)
        target = said(f"{first['method']} {first.get('location')}", 400) if "method" in first else None
        state = "" if went_on else " not-reached"
        title = "Backend" if went_on else "Backend, not reached"
        if any(event.body["event"] == "replayed" for event in events):
            title += ", refused a replay"
        boxes.append(_box(f"backend{state}", title, where, target))
    return element(
        "section",
        element("h2", "Who, for whom, through whom", id="chain"),
        element("ol", boxes, class_="chain"),
        aria_labelledby="chain",
    )


def _box(kind: str, title: str, name: Child, detail: Child) -> Markup:
    return element(
        "li",
        element("span", title, class_="title"),
        element("span", name, class_="name"),
        element("span", detail, class_="detail"),
        class_=f"box {kind}",
    )


def _hops(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The actors, the one next to the subject first."""
    found: list[Mapping[str, Any]] = []
    act = body.get("act")
    while isinstance(act, dict):
        hop = cast("Mapping[str, Any]", act)
        found.append(hop)
        act = hop.get("act")
    return found[::-1]


def _timeline(seen: Seen, events: Sequence[Event]) -> Markup:
    begin = _ms(events[0].body["time"])
    rows: list[Markup] = []
    for event in events:
        at = _ms(event.body["time"])
        after = "" if begin is None or at is None else f"+{at - begin} ms"
        rows.append(
            element(
                "tr",
                element("th", seen.when(event.body["time"]), scope="row"),
                element("td", after, class_="number"),
                element("td", said(happened(event.body), 600)),
                element("td", _number(seen, event.index), class_="number"),
                class_="bad" if event.body["event"] in {"refused", "replayed"} else None,
            )
        )
    if how_it_ended(events) == "unfinished":
        rows.append(
            element("tr", element("td", "unfinished: the log does not say how this call ended", colspan=4))
        )
    heads = ("Time", "After", "What happened", "Record")
    return element(
        "section",
        element("h2", "What happened", id="events"),
        element(
            "div",
            element(
                "table",
                element("caption", "Every event of this call, in the order of the log"),
                element("thead", element("tr", [element("th", head, scope="col") for head in heads])),
                element("tbody", rows),
            ),
            class_="wide",
            role="region",
            aria_label="Events",
            tabindex="0",
        ),
        aria_labelledby="events",
    )


def _number(seen: Seen, index: int) -> Markup:
    return seen.link(str(index), seen.address(f"record/{index}"))


def _ms(time: object) -> int | None:
    try:
        return int(datetime.fromisoformat(str(time)).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _token(first: Mapping[str, Any], index: int) -> Markup:
    """What the token said, as far as its record has it; its signature is nowhere in the log."""
    values = dict(first) | {"client_id": first.get("agent"), "scope": first.get("action"), "log": index}
    values["cnf"] = first.get("jkt")
    values["iss"] = None
    if isinstance(first.get("exp"), int):
        try:
            values["exp"] = f"{first['exp']} ({datetime.fromtimestamp(first['exp'], UTC):%Y-%m-%dT%H:%M:%SZ})"
        except (ValueError, OverflowError, OSError):
            values["exp"] = first["exp"]
    pairs: list[Child] = []
    for name, what in _CLAIMS:
        if values.get(name) is not None:
            pairs.append(_pair(name, what, values[name]))
    act = first.get("act")
    if act is not None:
        pairs.append(_pair("act", "who acts, the newest outermost", pretty(act)))
    if "method" in first:
        detail = {
            name: first[name]
            for name in ("tool", "method", "location", "body_sha256", "arguments_sha256")
            if name in first
        }
        pairs.append(_pair("authorization_details", "the one request that it is for", pretty(detail)))
    if "arguments" in first:
        pairs.append(_pair("arguments", "kept in clear", pretty(first["arguments"])))
    return element(
        "section",
        element("h2", "What its token says", id="token"),
        element("dl", pairs, class_="claims"),
        aria_labelledby="token",
    )


def _pair(name: str, what: str, value: object) -> Child:
    shown = value if isinstance(value, Markup) else said(value, 600)
    return element(
        "div", element("dt", element("code", name), " ", element("small", what)), element("dd", shown)
    )


def pretty(value: object) -> Markup:
    """JSON, a line for each member: every line is escaped on its own."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    return element("pre", [element("span", said(line, 600), class_="line") for line in lines[:200]])


def _records(events: Sequence[Event]) -> Markup:
    parts = [
        element(
            "details",
            element("summary", f"Record {event.index}: ", said(event.body["event"], 40)),
            pretty(event.body),
        )
        for event in events
    ]
    return element("section", element("h2", "The records", id="records"), parts, aria_labelledby="records")


def file(seen: Seen) -> File:
    """Every record of one call, in pieces."""
    events_of(seen, seen.path)
    last = index_of(seen.query, "before")
    events = history.call(seen.connection, seen.path, after=-1 if last is None else last, most=PIECE)
    if not all(seen.may_show(event.body) for event in events if event.body["event"] in _BEGINS):
        raise Missing
    name = "call-" + "".join(character for character in seen.path[:64] if character.isalnum())
    return File(
        name=name.encode("ascii", "ignore").decode(),
        columns=("record", "time", "event", "body"),
        rows=[
            (event.index, event.body["time"], event.body["event"], json.dumps(event.body)) for event in events
        ],
        objects=[{"index": event.index, **event.body} for event in events],
        more=events[-1].index if len(events) == PIECE else None,
    )
