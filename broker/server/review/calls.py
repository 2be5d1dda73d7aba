"""The list of calls: the newest first, with filters that live in the address."""

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode

from broker.plain_text import plain
from broker.retold import chain as in_words, how_to_go_on, why
from broker.server.review.files import PIECE, File
from broker.server.review.filters import Wanted, wanted
from broker.server.review.frame import Page
from broker.server.review.html import Child, Markup, element, said
from broker.server.review.seen import Seen
from broker.store import history
from broker.store.history import OUTCOMES, Line

PAGE = 50

_NAMES = ("subject", "agent", "tool", "backend", "tenant", "since", "until")

_MARKS: Mapping[str, str] = {
    "returned": "✓",
    "issued": "→",
    "refused": "✕",
    "failed": "!",
    "cancelled": "–",
    "unfinished": "…",
    "replayed": "⚠",
}
"""Beside the word: nobody has to tell colours apart."""


def show(seen: Seen) -> Page:
    """One page of it."""
    asked = wanted(seen.query)
    lines = history.list_calls(seen.connection, asked.filter(seen.reviewer.tenant), limit=PAGE)
    title = "Records" if asked.everything else "Calls"
    body = element(
        "div",
        filter_form(seen, asked),
        table(seen, lines, caption=caption(asked)),
        _onwards(seen, asked, lines),
        downloads(seen, "calls", asked),
    )
    return Page(title=title, body=body, place="", live=asked.before is None and not asked.until)


def elsewhere(query: Mapping[str, str]) -> str | None:
    """Words, and what has no end, are found in the index: the log itself would be looked through for them."""
    question = "search" if query.get("text", "").strip() else None
    if query.get("outcome") == "unfinished":
        question = question or "unfinished"
    if question is None:
        return None
    kept = {name: query[name] for name in (*_NAMES, "text") if query.get(name, "").strip()}
    return f"questions/{question}?{urlencode(kept, quote_via=quote)}"


def table(seen: Seen, lines: Iterable[Line], *, caption: str) -> Markup:
    """Calls, one a row."""
    rows = [_row(seen, line) for line in lines]
    if not rows:
        rows = [element("tr", element("td", "Nothing in the log fits.", colspan=6))]
    heads = ("Time", "For whom ← through whom", "Tool", "Outcome", "Rule or reason", "Call")
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", [element("th", name, scope="col") for name in heads])),
            element("tbody", rows, id="rows"),
        ),
        class_="wide",
        role="region",
        aria_label="Records",
        tabindex="0",
    )


def _row(seen: Seen, line: Line) -> Markup:
    body = line.body
    txn = body.get("txn")
    call: Child
    if isinstance(txn, str) and txn:
        call = seen.link(said(txn, 40), seen.of_call(txn))
    else:
        call = said(how_to_go_on(body), 160)
    return element(
        "tr",
        element("th", seen.when(body["time"]), scope="row"),
        element("td", chain(seen, body)),
        element("td", said(body.get("tool", "–"), 64)),
        element("td", outcome(line.outcome)),
        element("td", said(why(body), 120)),
        element("td", call),
        data_index=line.index,
    )


def outcome(word: str) -> Markup:
    """How it ended, as a word with a mark."""
    kind = word if word in _MARKS else "other"
    return element(
        "span",
        element("span", _MARKS.get(word, "•"), aria_hidden="true"),
        " ",
        said(word, 40),
        class_=f"outcome {kind}",
    )


def chain(seen: Seen, body: Mapping[str, Any]) -> Markup:
    """For whom, through whom; the first and the last lead to what they did over time."""
    names = through(body)
    if not names:
        return said("unknown")
    parts: list[Child] = []
    for place, name in enumerate(names):
        if place:
            parts.append(element("span", " ← ", class_="by"))
        label = said(name, 40)
        if place == 0:
            parts.append(seen.link(label, seen.address("who", subject=name)))
        elif place == len(names) - 1:
            parts.append(seen.link(label, seen.address("who", agent=name)))
        else:
            parts.append(label)
    return element("span", parts, class_="chain-line")


def through(body: Mapping[str, Any]) -> list[str]:
    """The subject, and everybody who acts for it, the agent that called last."""
    if "sub" not in body:
        return []
    actors: list[str] = []
    act = body.get("act")
    while isinstance(act, dict):
        hop = cast("Mapping[str, Any]", act)
        actors.append(str(hop.get("sub")))
        act = hop.get("act")
    return [str(body["sub"]), *reversed(actors)]


def caption(asked: Wanted) -> str:
    """What is shown, in words."""
    what = "Every record" if asked.everything else "Calls"
    conditions = [
        f"{name} {plain(value, 60)}"
        for name in ("subject", "agent", "tool", "backend", "tenant", "outcome", "txn", "since", "until")
        if (value := getattr(asked, name))
    ]
    return f"{what}, the newest first" + (f": {', '.join(conditions)}" if conditions else "")


def filter_form(seen: Seen, asked: Wanted) -> Markup:
    """A plain form: what it asks for becomes the address."""
    tenant = None if seen.reviewer.tenant is not None else _field("tenant", "Tenant", asked.tenant)
    choices = [
        element("option", "any", value=""),
        *(element("option", name, value=name, selected=name == asked.outcome) for name in OUTCOMES),
    ]
    return element(
        "form",
        element(
            "div",
            _field("subject", "Subject", asked.subject),
            _field("agent", "Agent", asked.agent),
            _field("tool", "Tool", asked.tool),
            _field("backend", "Backend", asked.backend),
            element(
                "p",
                element("label", "Outcome", for_="outcome"),
                element("select", choices, id="outcome", name="outcome"),
            ),
            tenant,
            _field("text", "Words", asked.text),
            _field("since", "Since (UTC)", asked.since, hint="2026-12-31"),
            _field("until", "Until (UTC)", asked.until, hint="2026-12-31T12"),
            element(
                "p",
                element(
                    "label",
                    element("input", type="checkbox", name="everything", value="1", checked=asked.everything),
                    " Sessions, catalogs, spends and looks too",
                ),
                class_="check",
            ),
            class_="fields",
        ),
        element(
            "p",
            element("button", "Filter", type="submit"),
            " ",
            seen.link("Clear", f"{seen.base}/", class_="button"),
            " ",
            seen.link("Refresh", here(seen, asked), class_="button", data_key="r"),
            class_="actions",
        ),
        method="get",
        action=f"{seen.base}/",
        class_="filters",
        role="search",
        aria_label="Filter the records",
    )


def _field(name: str, label: str, value: str | None, hint: str | None = None) -> Markup:
    shown = value or ""
    hidden = None
    if value and plain(value, 10_000) != value:
        # What does not show as itself is kept beside the field, and said in it: sent back, the name would be
        # the escapes that stand for it.
        hidden = element("input", type="hidden", name=name, value=value)
    field = element(
        "input",
        id=name,
        name=None if hidden else name,
        value=plain(shown, 10_000),
        readonly=bool(hidden),
        placeholder=hint,
        type="text",
        autocomplete="off",
        spellcheck="false",
        maxlength=512,
    )
    return element("p", element("label", label, for_=name), field, hidden)


def here(seen: Seen, asked: Wanted) -> str:
    """The address of this very question."""
    return f"{seen.base}/" + (f"?{asked.query}" if asked.query else "")


def _onwards(seen: Seen, asked: Wanted, lines: list[Line]) -> Markup:
    links: list[Child] = []
    if asked.before is not None:
        links.append(seen.link("The newest", here(seen, asked.first_page), rel="first"))
    if len(lines) == PAGE:
        query = "&".join(filter(None, (asked.first_page.query, urlencode({"before": lines[-1].index}))))
        links.append(seen.link("Older", f"{seen.base}/?{query}", rel="next", data_key="o"))
    return element("nav", [element("span", link) for link in links], class_="pages", aria_label="More pages")


def downloads(seen: Seen, name: str, asked: Wanted) -> Markup:
    """This very view as a file, all of its pages."""
    query = f"?{asked.first_page.query}" if asked.first_page.query else ""
    return element(
        "p",
        "All of it: ",
        seen.link("CSV", f"{seen.base}/{name}.csv{query}", download=""),
        " ",
        seen.link("JSON lines", f"{seen.base}/{name}.jsonl{query}", download=""),
        class_="downloads",
    )


def file(seen: Seen) -> File:
    """What the list of calls shows, all of its pages."""
    asked = wanted(seen.query)
    lines = history.list_calls(seen.connection, asked.filter(seen.reviewer.tenant), limit=PIECE)
    return File(
        name="calls",
        columns=("time", "chain", "tool", "backend", "outcome", "rule_or_reason", "txn", "tenant", "record"),
        rows=[
            (
                line.body["time"],
                in_words(line.body),
                line.body.get("tool", ""),
                line.body.get("backend", ""),
                line.outcome,
                why(line.body),
                line.body.get("txn", ""),
                line.body.get("tenant", ""),
                line.index,
            )
            for line in lines
        ],
        objects=[
            {"index": line.index, "outcome": line.outcome, "spent": line.spent, **line.body} for line in lines
        ],
        more=lines[-1].index if len(lines) == PIECE else None,
    )
