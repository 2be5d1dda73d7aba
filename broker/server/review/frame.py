"""What every page has around it: head, navigation, footer, and the headers that keep it to itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.server.review.html import Child, Markup, document, element, said

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing inline, nothing from elsewhere, nobody's frame; and no script that writes HTML, not even ours."""

HEADERS: Mapping[str, str] = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}

_PLACES = (
    ("", "Calls"),
    ("who", "Agents and subjects"),
    ("questions", "Questions"),
    ("integrity", "Integrity"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one view shows.

    Attributes:
        place: the entry of the navigation that it belongs to.
        live: its rows are asked for again by the script, and what is new is announced.
    """

    title: str
    body: Markup
    place: str | None = None
    status: int = 200
    live: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the pages of one reviewer have in common.

    Attributes:
        base: path of the pages, without a slash at its end.
        who: whom the pages are shown to; empty where nobody is logged in.
        log: the log's own name, or its file's.
        notes: what everybody who reads any page has to know.
    """

    base: str
    who: str = ""
    log: str = ""
    notes: tuple[str, ...] = ()

    def page(self, page: Page) -> bytes:
        """The whole document."""
        return document(
            element(
                "head",
                element("meta", charset="utf-8"),
                element("title", said(f"{page.title} · delegation log", 120)),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("meta", name="robots", content="noindex"),
                element("link", rel="stylesheet", href=f"{self.base}/review.css"),
                element("link", rel="icon", type="image/svg+xml", href=f"{self.base}/icon.svg"),
                element("script", src=f"{self.base}/review.js", defer=True),
            ),
            element(
                "body",
                element("a", "Skip to the content", class_="skip", href="#content"),
                self._header(page),
                element(
                    "main",
                    [element("p", note, class_="note", role="note") for note in self.notes],
                    element("h1", said(page.title, 120)),
                    page.body,
                    id="content",
                    tabindex="-1",
                ),
                self._footer(page),
                class_="live" if page.live else None,
            ),
        )

    def _header(self, page: Page) -> Markup:
        if not self.who:
            return element("header", element("p", "Delegation log", class_="brand"))
        links = [
            element(
                "li",
                element(
                    "a",
                    name,
                    href=f"{self.base}/{place}",
                    aria_current="page" if place == page.place else None,
                    data_key=name[0].lower(),
                ),
            )
            for place, name in _PLACES
        ]
        leave = element(
            "form",
            element("span", "Reviewer ", element("b", said(self.who, 60)), class_="who"),
            element("button", "Log out", type="submit"),
            method="post",
            action=f"{self.base}/logout",
            class_="leave",
        )
        return element(
            "header",
            element(
                "p", "Delegation log ", element("span", said(self.log, 80), class_="log"), class_="brand"
            ),
            element("nav", element("ul", links), aria_label="Pages"),
            leave,
        )

    def _footer(self, page: Page) -> Child:
        said_of_looks = "Read-only. All times are UTC. What you look at is itself recorded."
        if not self.who:
            said_of_looks = "Read-only."
        if any("not recorded" in note for note in self.notes):
            said_of_looks = "Read-only. All times are UTC."
        return element(
            "footer",
            element("p", said_of_looks),
            element("p", id="live", class_="quiet", role="status", aria_live="polite") if page.live else None,
            element("p", id="keys", class_="quiet"),
        )


def problem(title: str, sentence: str, *, status: int, links: Child = None) -> Page:
    """A page that says why there is no other."""
    return Page(title=title, body=element("div", element("p", said(sentence, 600)), links), status=status)
