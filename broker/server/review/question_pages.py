"""The pages of the questions: a form, the answer as a table, and as a file."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode

from broker.errors import Usage
from broker.plain_text import plain
from broker.review.index import ReviewIndex
from broker.server.review.files import File
from broker.server.review.filters import MOST, index as index_of
from broker.server.review.frame import Page
from broker.server.review.html import Child, Markup, element, said
from broker.server.review.questions import BY_NAME, LABELS, QUESTIONS, Asked, Question
from broker.server.review.seen import Missing, Seen
from broker.server.review.table import Answer


def show_all(seen: Seen) -> Page:
    """The list of questions."""
    items = [
        element(
            "div",
            element("dt", seen.link(question.title, seen.address(f"questions/{question.name}"))),
            element("dd", question.what),
        )
        for question in _for(seen)
    ]
    return Page(title="Questions", body=element("dl", items, class_="facts"), place="questions")


def _for(seen: Seen) -> Iterable[Question]:
    return (each for each in QUESTIONS if seen.reviewer.tenant is None or not each.of_all)


def show(seen: Seen, index: ReviewIndex, note: str) -> Page:
    """One question: its form, and its answer where everything is there that it needs."""
    question, given = _asked(seen)
    parts: list[Child] = [element("p", question.what), _form(seen, question, given)]
    if note:
        parts.append(element("p", note, class_="note", role="note"))
    if all(name in given for name in question.needs):
        answer = question.ask(_ready(seen, index, given))
        parts += [element("p", said(each, 600)) for each in answer.notes]
        parts += [answer.extra, answer.table(_caption(question, given)), _more(seen, question, given, answer)]
        parts.append(_downloads(seen, question, given))
    return Page(title=question.title, body=element("div", parts), place="questions")


def file(seen: Seen, index: ReviewIndex) -> File:
    """The answer as a file."""
    question, given = _asked(seen)
    return question.ask(_ready(seen, index, given)).file(question.name)


def _asked(seen: Seen) -> tuple[Question, dict[str, str]]:
    question = BY_NAME.get(seen.path)
    if question is None:
        raise Missing
    given = {name: value for name in question.fields if (value := seen.query.get(name, "").strip())}
    for name, value in given.items():
        if len(value) > MOST:
            raise Usage(f"{name} has more than {MOST} characters")
    return question, given


def _ready(seen: Seen, index: ReviewIndex, given: dict[str, str]) -> Asked:
    return Asked(seen, index, given, index_of(seen.query, "before"))


def _caption(question: Question, given: Mapping[str, str]) -> str:
    filled = ", ".join(f"{name} {plain(value, 60)}" for name, value in given.items())
    return question.title + (f": {filled}" if filled else "")


def _form(seen: Seen, question: Question, given: Mapping[str, str]) -> Markup:
    fields = [
        element(
            "p",
            element("label", LABELS[name], for_=name),
            element(
                "input",
                id=name,
                name=name,
                value=plain(given.get(name, ""), 10_000),
                type="date" if name in {"day", "other"} else "text",
                required=name in question.needs,
                autocomplete="off",
                spellcheck="false",
                maxlength=MOST,
            ),
        )
        for name in question.fields
        if name != "tenant" or seen.reviewer.tenant is None
    ]
    return element(
        "form",
        element("div", fields, class_="fields"),
        element("p", element("button", "Ask", type="submit"), class_="actions"),
        method="get",
        action=seen.address(f"questions/{question.name}"),
        class_="filters",
        role="search",
        aria_label=question.title,
    )


def _query(given: Mapping[str, str], **more: int) -> str:
    return urlencode({**given, **more}, quote_via=quote)


def _more(seen: Seen, question: Question, given: Mapping[str, str], answer: Answer) -> Markup | None:
    if answer.more is None:
        return None
    older = f"{seen.address(f'questions/{question.name}')}?{_query(given, before=answer.more)}"
    return element(
        "nav", seen.link("Older", older, rel="next", data_key="o"), class_="pages", aria_label="More pages"
    )


def _downloads(seen: Seen, question: Question, given: Mapping[str, str]) -> Markup:
    query = f"?{_query(given)}" if given else ""
    at = seen.address(f"questions/{question.name}")
    return element(
        "p",
        "All of it: ",
        seen.link("CSV", f"{at}.csv{query}", download=""),
        " ",
        seen.link("JSON lines", f"{at}.jsonl{query}", download=""),
        class_="downloads",
    )
