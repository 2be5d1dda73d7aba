"""The door of the pages: which address is which view, who may look, and that each look is recorded first."""

import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from broker.errors import BrokerError, LogTampered, LogUnavailable, Usage
from broker.server.quiet import where
from broker.server.review.asking import Asking, Busy
from broker.server.review.files import File, Proof
from broker.server.review.filters import ASKED
from broker.server.review.frame import HEADERS, Frame, Page, problem
from broker.server.review.html import element
from broker.server.review.login import Login, Told
from broker.server.review.looks import Look, Looks
from broker.server.review.seen import Missing, Seen
from broker.server.review.sessions import Kept, ReviewSessions
from broker.server.review.view import View

_log = logging.getLogger("broker.review")

_ASSETS: Mapping[str, str] = {
    "review.css": "text/css; charset=utf-8",
    "review.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the pages are.

    Attributes:
        base: their path, without a slash at its end.
        mounted: the path as it arrives here, where a proxy takes a part of it away; empty where none does.
        hosts: the `Host` headers that are taken; a page that rebinds its name to this address has another.
        secure: reached by https.
        cookie: the session's; `__Host-…` where it is secure.
        title: the log's name, for people.
        notes: for every page.
    """

    base: str
    hosts: frozenset[str]
    secure: bool
    cookie: str
    title: str
    mounted: str = ""
    notes: tuple[str, ...] = ()

    def cookie_header(self, value: str, *, life_s: int) -> tuple[str, str]:
        """`Set-Cookie`: for no script, no other site, and no longer than the session (RFC 6265bis)."""
        path = "/" if self.cookie.startswith("__Host-") else self.base
        secure = "; Secure" if self.secure else ""
        text = f"{self.cookie}={value}; Path={path}; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}"
        return "set-cookie", text


class ReviewDoor:
    """The pages, as an ASGI app."""

    def __init__(
        self,
        place: Place,
        *,
        views: Sequence[View],
        login: Login,
        sessions: ReviewSessions,
        asking: Asking,
        looks: Looks,
        now_ms: Callable[[], int],
        life_s: Callable[[], int],
        configured: Callable[[], bool] = lambda: True,
    ) -> None:
        """Args:
        configured: whether there are any such pages now.
        """
        self._place = place
        self._views = views
        self._login = login
        self._sessions = sessions
        self._asking = asking
        self._looks = looks
        self._now_ms = now_ms
        self._life_s = life_s
        self._configured = configured
        self._closing = False

    def refuse_newcomers(self) -> None:
        """From now on every request is answered with 503."""
        self._closing = True

    def end_streams(self) -> None:
        """A download ends with its connection."""

    async def keep_index(self) -> None:
        """To run beside the door: keeps the index up to date, while somebody asks questions over it."""
        await self._asking.keep_index()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with the headers that every answer has."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - a defect shows nobody anything, and is no silent one
            _log.error("%s %s ended with %s", scope["method"], scope["path"][:100], where(error))
            response = self._page(problem("Something went wrong", "The broker has noted it.", status=500))
        for name, value in HEADERS.items():
            response.headers[name] = value
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        """The answer to one request.

        What must hold before anything of the log is read:

        1. The broker is not about to close, and the request is for this very host: a page elsewhere that has
           its name lead here is another origin to the browser, and the same one to its own scripts.
        2. It only reads; `POST` is for logging out alone, and comes from one of these pages.
        3. What anybody may have: the style, the script, the way in.
        4. A session stands behind its cookie.
        5. The look is in the log. Where it cannot be, nothing is shown.
        """
        # 1. Open, and here.
        if self._closing:
            return self._page(problem("Closing", "The broker is about to end.", status=503))
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._place.hosts:
            return self._page(problem("Not here", "These pages have another address.", status=421))
        path = self._path(request)
        if path is None or not self._configured():
            return self._page(problem("Not found", "There is no such page.", status=404))
        # 2. Only reads.
        if request.method == "POST" and path == "logout":
            return self._leave(request)
        if request.method not in {"GET", "HEAD"}:
            response = self._page(problem("Read-only", "These pages change nothing.", status=405))
            response.headers["allow"] = "GET, HEAD"
            return response
        # 3. For anybody.
        if path in _ASSETS:
            return Response(_asset(path), media_type=_ASSETS[path])
        if path in {"login", "callback"}:
            step = self._login.begin if path == "login" else self._login.finish
            return self._entered(await step(request))
        # 4. Logged in.
        kept = self._kept(request)
        if kept is None:
            return self._page(self._login.closed())
        return await self._shown(request, path, kept)

    async def _shown(self, request: Request, path: str, kept: Kept) -> Response:
        """One view, for somebody who is logged in."""
        found = self._view(path)
        if found is None:
            return self._page(problem("Not found", "There is no such page.", status=404), kept)
        view, rest, form = found
        query = {name: value for name, value in request.query_params.items() if name in ASKED}
        if not form and (better := view.elsewhere(query)) is not None:
            return RedirectResponse(f"{self._place.base}/{better}", status_code=303)
        try:
            # 5. Recorded.
            name = view.name + (f".{form}" if form else "")
            await self._looks.record(kept, Look(view=name, of=rest or None, asked=query))
            if (proof := view.proof) is not None and form == "tlog-proof":
                seen = self._asking(lambda connection: proof(self._seen(connection, kept, query, rest)))
                return _attached(await seen)
            if form:
                alone = request.method == "HEAD"
                return await self._download(view, kept, query, rest, form, head_alone=alone)
            tag = f'"{await self._asking(_state)}"' if view.path == "" else ""
            if tag and request.headers.get("if-none-match") == tag:
                return Response(status_code=304)
            page = await self._ask(view, kept, query, rest)
        except Missing:
            page = problem("Not found", "The log has nothing of that name that you may see.", status=404)
            tag = ""
        except (Usage, Busy, LogUnavailable, LogTampered) as error:
            page, tag = _told(error), ""
        response = self._page(page, kept)
        if tag:
            response.headers["etag"] = tag
        return response

    async def _ask(self, view: View, kept: Kept, query: Mapping[str, str], rest: str) -> Page:
        if (over_index := view.over_index) is not None:
            return await self._asking.indexed(
                lambda found: over_index(
                    self._seen(found.index.connection, kept, query, rest), found.index, found.note
                )
            )
        show = view.show
        assert show is not None  # noqa: S101 - a view has one of the two
        return await self._asking(lambda connection: show(self._seen(connection, kept, query, rest)))

    async def _piece(self, view: View, kept: Kept, query: Mapping[str, str], rest: str) -> File:
        if (index_file := view.index_file) is not None:
            return await self._asking.indexed(
                lambda found: index_file(self._seen(found.index.connection, kept, query, rest), found.index)
            )
        file = view.file
        assert file is not None  # noqa: S101 - as above
        return await self._asking(lambda connection: file(self._seen(connection, kept, query, rest)))

    def _seen(self, connection: sqlite3.Connection, kept: Kept, query: Mapping[str, str], rest: str) -> Seen:
        return Seen(
            connection=connection,
            reviewer=kept.reviewer,
            query=query,
            path=rest,
            base=self._place.base,
            now_ms=self._now_ms(),
        )

    def _path(self, request: Request) -> str | None:
        """What stands behind the base, still encoded; None where it is elsewhere."""
        raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        text = raw.partition(b"?")[0].decode("latin-1")
        for base in filter(None, (self._place.base, self._place.mounted)):
            if text == base:
                return ""
            if text.startswith(base + "/"):
                return text[len(base) + 1 :]
        return None

    def _view(self, path: str) -> tuple[View, str, str] | None:
        """The view at this path, what follows, and as which file."""
        form = ""
        for each in ("csv", "jsonl", "tlog-proof"):
            if path.endswith(f".{each}"):
                path, form = path[: -len(each) - 1], each
        for view in self._views:
            if form and not (view.proof if form == "tlog-proof" else view.has_file):
                continue
            if view.path.endswith("/"):
                rest = path.removeprefix(view.path)
                if path.startswith(view.path) and rest and "/" not in rest:
                    return view, unquote(rest), form
            elif path == (view.path or (view.name if form else "")):
                return view, "", form
        return None

    # ── coming and going ───────────────────────────────────────────────────────

    def _kept(self, request: Request) -> Kept | None:
        """The session of the request. Another program on this machine can set a cookie of the same name: any
        that stands is taken, and it could only be one that this door gave."""
        for secret in _cookies(request, self._place.cookie):
            if (kept := self._sessions.find(secret)) is not None:
                return kept
        return None

    def _entered(self, told: Told) -> Response:
        if isinstance(told, Response):
            return told
        if isinstance(told, Page):
            return self._page(told)
        secret = self._sessions.open(told.reviewer)
        # Not a redirect: whoever came here from another site would follow it without a `SameSite=Strict`
        # cookie. A step from this page is one from this site.
        page = Page(
            title="You are logged in",
            body=element("p", element("a", "Go on to the log", href=f"{self._place.base}/")),
        )
        response = self._page(page)
        response.headers["refresh"] = f"0; url={self._place.base}/"
        for name, value in (self._place.cookie_header(secret, life_s=self._life_s()), *told.headers):
            response.headers.append(name, value)
        return response

    def _leave(self, request: Request) -> Response:
        """Log out: asked for by one of these pages, and by no other.

        Pages without a referrer send `Origin: null`; browsers say themselves where a request comes from.
        """
        scheme = "https" if self._place.secure else "http"
        own = f"{scheme}://{request.headers.get('host', '').lower()}"
        if request.headers.get("sec-fetch-site") != "same-origin" and request.headers.get("origin") != own:
            return self._page(problem("Not from here", "Log out on one of these pages.", status=403))
        for secret in _cookies(request, self._place.cookie):
            self._sessions.close(secret)
        page = problem("You are logged out", "Close this window, or log in again.", status=200)
        response = self._page(page)
        name, value = self._place.cookie_header("", life_s=0)
        response.headers.append(name, value)
        response.headers["clear-site-data"] = '"cache"'
        return response

    # ── answers ────────────────────────────────────────────────────────────────

    def _page(self, page: Page, kept: Kept | None = None) -> Response:
        notes = self._place.notes if kept is not None else ()
        who = "" if kept is None else kept.reviewer.sub
        title = self._place.title if kept is not None else ""
        frame = Frame(base=self._place.base, who=who, log=title, notes=notes)
        return Response(frame.page(page), status_code=page.status, media_type="text/html; charset=utf-8")

    async def _download(
        self,
        view: View,
        kept: Kept,
        query: Mapping[str, str],
        rest: str,
        form: str,
        *,
        head_alone: bool,
    ) -> Response:
        """A file, piece by piece: each piece is one question, so that no download holds the log open."""

        async def piece(at: int | None) -> File:
            here = query if at is None else {**query, "before": str(at)}
            return await self._piece(view, kept, here, rest)

        first = await piece(None)

        async def pieces() -> AsyncGenerator[bytes]:
            here = first
            yield here.bytes(form, head=True)
            # Whoever asks for the head alone is sent no piece: none is looked for.
            while here.more is not None and not head_alone:
                here = await piece(here.more)
                yield here.bytes(form, head=False)

        kind = "text/csv; charset=utf-8; header=present" if form == "csv" else "application/jsonl"
        headers = {"content-disposition": f'attachment; filename="{first.name}.{form}"'}
        return StreamingResponse(pieces(), media_type=kind, headers=headers)


def _attached(proof: Proof) -> Response:
    headers = {"content-disposition": f'attachment; filename="{proof.name}.tlog-proof"'}
    return Response(proof.text, media_type="text/plain; charset=utf-8", headers=headers)


def _told(error: Exception) -> Page:
    if isinstance(error, Usage):
        return problem("That cannot be asked", error.message, status=400)
    if isinstance(error, LogTampered):
        return problem("The log is damaged", f"{error.message}. Run `broker log verify`.", status=500)
    if isinstance(error, BrokerError):
        return problem("The log cannot be used now", f"{error.message}. Nothing is shown.", status=503)
    return problem("Not now", str(error), status=503)


def _state(connection: sqlite3.Connection) -> str:
    """What changes when there is a new record."""
    (size,) = connection.execute("SELECT size FROM head").fetchone()
    return str(size)


def _asset(name: str) -> bytes:
    return resources.files("broker.server.review").joinpath("assets", name).read_bytes()


def _cookies(request: Request, name: str) -> list[str]:
    found: list[str] = []
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name and value:
                found.append(value)
    return found[:8]
