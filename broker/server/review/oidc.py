"""Logging in at an identity provider: OpenID Connect's code flow with PKCE, for `broker serve`."""

import hmac
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse

from broker.canonical import Json
from broker.errors import Code, LogUnavailable, Rejected
from broker.id_token import reviewer_of
from broker.jws import encode_part
from broker.record import Record
from broker.reviewers import Reviewer, ReviewSettings
from broker.server.review.frame import Page, problem
from broker.server.review.html import element
from broker.server.review.login import Entered, Told
from broker.server.review.provider import Provider
from broker.store.protocols import Entry, Log

FLOW_S = 600
"""How long somebody may take at the provider."""

AT_ONCE = 32
"""Logins that wait for the provider: anybody can begin one, and each is a request to it."""

_MAX_CODE = 4096
_FLOW = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class Settings(Protocol):
    """What `[review]` says now; None where it is not there."""

    def __call__(self) -> ReviewSettings | None: ...


class OidcLogin:
    """Sends people to their provider, and takes them back.

    Nothing is kept of a login under way: whoever begins a million of them fills nothing. What it is known by
    again lies in a cookie, and `state`, `nonce` and the PKCE verifier are made of that cookie and a key of
    this process, each under a name of its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        provider: Provider,
        log: Log,
        now_ms: Callable[[], int],
        key: bytes,
        new_secret: Callable[[], str],
        base: str,
        origin: str,
    ) -> None:
        """Args:
        key: 256 random bits, of this process.
        base, origin: of the pages; the redirect URI is `origin + base + /callback`.
        """
        self._settings = settings
        self._provider = provider
        self._log = log
        self._now_ms = now_ms
        self._key = key
        self._new_secret = new_secret
        self._base = base
        self._secure = origin.startswith("https:")
        self._cookie = "__Host-review-login" if self._secure else "review-login"
        self.redirect_uri = f"{origin}{base}/callback"
        self._under_way = 0

    async def begin(self, request: Request) -> Told:
        """Send somebody to the provider (OpenID Connect Core §3.1.2.1)."""
        del request
        settings = self._settings()
        if settings is None:
            return self.closed()
        if self._under_way >= AT_ONCE:
            return _BUSY
        self._under_way += 1
        try:
            endpoints = await self._provider.endpoints(settings)
        except Rejected as rejected:
            return problem("You cannot log in now", rejected.message, status=503)
        finally:
            self._under_way -= 1
        flow = f"{self._now_ms() // 1000}.{self._new_secret()}"
        challenge = encode_part(sha256(self._made("verifier", flow).encode()).digest())
        query = urlencode(
            {
                "response_type": "code",
                "client_id": settings.client_id,
                "redirect_uri": self.redirect_uri,
                "scope": settings.scope,
                "state": self._made("state", flow),
                "nonce": self._made("nonce", flow),
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            },
            quote_via=quote,
        )
        joined = "&" if "?" in endpoints.authorization else "?"
        response = RedirectResponse(f"{endpoints.authorization}{joined}{query}", status_code=303)
        response.headers.append("set-cookie", self._cookie_header(flow, FLOW_S))
        return response

    async def finish(self, request: Request) -> Told:
        """Take somebody back from the provider.

        What must hold:

        1. The pages are configured, and each parameter stands there once.
        2. The login began in this very browser, not long ago: its cookie is there, and `state` is made of it.
           Who lures a browser here with a code of their own has no such cookie in it (RFC 6749 §10.12).
        3. The answer is the configured provider's (RFC 9207 §2.4): `iss` is it, where there is one, and there
           is one where the provider says so. Else an answer of another could carry its code to this one.
        4. It is no error.
        5. The code gives an ID token that the provider signed: `Provider.redeem`.
        6. The ID token answers this login, and names somebody who may look: `id_token.reviewer_of`.
        7. That somebody came in is in the log.

        Whatever fails from 5 on is a refusal, and in the log. Where all holds, the cookie of the login goes.
        """
        if self._under_way >= AT_ONCE:
            return _BUSY
        self._under_way += 1
        try:
            told = await self._finish(request)
        finally:
            self._under_way -= 1
        gone = self._cookie_header("", 0)
        if isinstance(told, Entered):
            return Entered(told.reviewer, (("set-cookie", gone),))
        return told

    async def _finish(self, request: Request) -> Told:
        # 1. Once.
        settings = self._settings()
        if settings is None:
            return self.closed()
        pairs = request.query_params.multi_items()
        query = dict(pairs)
        if len(query) != len(pairs):
            return _failed("The answer of the identity provider has a parameter twice.")
        # 2. Began here.
        flow = self._flow(request)
        if flow is None or not hmac.compare_digest(
            query.get("state", "").encode(), self._made("state", flow).encode()
        ):
            return _failed("This login did not begin in this browser, or took too long.")
        try:
            # 3. That provider's.
            endpoints = await self._provider.endpoints(settings)
            iss = query.get("iss")
            if iss != settings.issuer and (iss is not None or endpoints.says_iss):
                return _failed("The answer is that of another identity provider.")
            # 4. No error.
            code = query.get("code", "")
            if "error" in query or not 0 < len(code) <= _MAX_CODE:
                return _failed(f"The identity provider said no: {query.get('error', 'no code')[:80]}.")
            # 5. An ID token.
            payload = await self._provider.redeem(
                settings, code, verifier=self._made("verifier", flow), redirect_uri=self.redirect_uri
            )
            # 6. Somebody who may look.
            reviewer = reviewer_of(
                payload, settings, nonce=self._made("nonce", flow), now_s=self._now_ms() // 1000
            )
        except Rejected as rejected:
            return await self._refused(rejected, request)
        # 7. In the log.
        try:
            await self._record(reviewer)
        except LogUnavailable:
            return problem("You cannot log in now", "The delegation log cannot be written.", status=503)
        return Entered(reviewer)

    def closed(self) -> Page:
        """For whoever is not logged in."""
        if self._settings() is None:
            return problem("Not found", "There is no such page.", status=404)
        way_in = element("p", element("a", "Log in", href=f"{self._base}/login", class_="button"))
        return problem(
            "You are not logged in", "Who may look at the log is asked at your identity provider.",
            status=401, links=way_in,
        )  # fmt: skip

    def _flow(self, request: Request) -> str | None:
        """What the cookie says of a login that began a while ago at most."""
        flow = request.cookies.get(self._cookie, "")
        found = _FLOW.fullmatch(flow)
        if found is None or not 0 <= self._now_ms() // 1000 - int(found[1]) <= FLOW_S:
            return None
        return flow

    def _made(self, what: str, flow: str) -> str:
        return encode_part(hmac.digest(self._key, f"{what}\0{flow}".encode(), "sha256"))

    def _cookie_header(self, value: str, life_s: int) -> str:
        # Lax: it has to come along when another site, the provider, sends somebody back.
        path, secure = ("/", "; Secure") if self._secure else (self._base, "")
        return f"{self._cookie}={value}; Path={path}; Max-Age={life_s}; HttpOnly; SameSite=Lax{secure}"

    async def _record(self, reviewer: Reviewer) -> None:
        fields: dict[str, Json] = {
            "reviewer": reviewer.sub,
            "reviewer_iss": reviewer.iss,
            "tenant": reviewer.tenant,
            "view": "login",
        }
        await self._log.append(Entry(record=Record(event="reviewed", time_ms=self._now_ms(), fields=fields)))

    async def _refused(self, rejected: Rejected, request: Request) -> Told:
        fields: dict[str, Json] = {
            "code": rejected.code,
            "reason": rejected.message,
            "via": "review",
            "peer": None if request.client is None else request.client.host,
        }
        try:
            await self._log.append(
                Entry(record=Record(event="refused", time_ms=self._now_ms(), fields=fields))
            )
        except LogUnavailable:
            return problem("You cannot log in now", "The delegation log cannot be written.", status=503)
        if rejected.code in {Code.CREDENTIAL_KEYS_UNAVAILABLE, Code.KEYS_UNSAFE}:
            return problem("You cannot log in now", "The operator finds the reason in the log.", status=503)
        return problem("You may not look at the log", rejected.message, status=403)


_BUSY = problem("You cannot log in now", "Too many log in at this moment. Try again.", status=503)


def _failed(sentence: str) -> Page:
    return problem("You are not logged in", sentence, status=400)
