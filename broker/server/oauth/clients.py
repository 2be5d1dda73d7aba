"""Which OAuth client sent a request: by its secret, by an assertion that its key signed, or not at all."""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from starlette.types import Scope

from broker.canonical import Json, digest
from broker.catalog import Catalog, Client
from broker.chain import principal_name
from broker.claims import LEEWAY_S
from broker.errors import Code, Rejected, Usage
from broker.jwks import FileKeys, KeySource, UrlKeys
from broker.jws import parse_compact, parse_json_strict
from broker.server.oauth.form import Form, decode_component
from broker.verify import ALGORITHMS, Algorithm, verify_parsed

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_TYPES = ("", "jwt", "client-authentication+jwt")
"""`typ` of an assertion; none that opens a session, and none of a token of ours (RFC 8725 §3.11)."""

MAX_ASSERTION_S = 300
"""From now to an assertion's `exp`, at most: so long is its `jti` remembered."""

MAX_SECRET = 512


class FirstUses(Protocol):
    """`store.protocols.FirstUses`, as this module needs it."""

    async def first_use(self, kind: str, key: str, *, keep_until_s: int) -> bool:
        """Whether this is the first use; durable when it returns. Raises LogUnavailable."""
        ...


class ClientKeys:
    """Key sources, kept over a reload of the catalog for those clients whose keys stay where they were.

    One for each declared client, as `foreign.IssuerKeys` has one for each issuer.
    """

    def __init__(self) -> None:
        self._sources: dict[tuple[str, tuple[str, ...]], KeySource] = {}

    def __call__(self, jwks: str, algorithms: tuple[Algorithm, ...]) -> KeySource:
        """The source of a client's keys. Raises Usage where its URL cannot be used."""
        key = (jwks, algorithms)
        source = self._sources.get(key)
        if source is None:
            if jwks.startswith(("https:", "http:")):
                source = UrlKeys(jwks, algorithms=algorithms, family="credential")
            else:
                source = FileKeys(Path(jwks), algorithms=algorithms, family="credential")
            self._sources[key] = source
        return source

    def retain(self, clients: Iterable[Client]) -> None:
        """Forget the keys of all others: a new catalog has no use for them."""
        places = {(client.jwks, _algorithms(client)) for client in clients}
        self._sources = {key: source for key, source in self._sources.items() if key in places}


class Clients:
    """Authenticates clients. One method for each, declared; a client cannot choose a weaker one."""

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        first_uses: FirstUses,
        keys: Callable[[str, tuple[Algorithm, ...]], KeySource] | None = None,
    ) -> None:
        self._catalog = catalog
        self._first_uses = first_uses
        self._keys = ClientKeys() if keys is None else keys

    async def __call__(self, scope: Scope, form: Form, *, now_ms: int) -> Client | None:
        """The client that sent the request, or None where nobody tried to be one.

        What must hold:

        1. At most one method is used (RFC 6749 §2.3), and it is one of those that are taken here: a secret
           in the body is not.
        2. The client is declared, with that very method.
        3. It proves to be that: see `_by_secret` and `_by_assertion`.
        4. A `client_id` beside it names the same client.

        Raises:
            Rejected: `exchange.malformed` for 1, `client.invalid` for all the rest;
                `credential.keys_unavailable` where its keys cannot be fetched now.
            LogUnavailable: it cannot be told whether an assertion was used before.
        """
        # 1. One method.
        basic = [value for name, value in scope["headers"] if name == b"authorization"]
        assertion, kind = form.one("client_assertion"), form.one("client_assertion_type")
        asserted = bool(assertion or kind)
        secret_in_body = bool(form.one("client_secret"))
        if len(basic) + asserted + secret_in_body > 1:
            raise Rejected(Code.EXCHANGE_MALFORMED, "more than one way of client authentication is used")
        if secret_in_body:
            raise _invalid("the secret stands in the body: client_secret_post is not taken")
        # 2, 3. Declared, proved.
        if basic:
            client = self._by_secret(basic[0])
        elif asserted:
            if kind != ASSERTION_TYPE or not assertion:
                raise _invalid("`client_assertion` or its type is missing, or of another type")
            client = await self._by_assertion(assertion, now_ms)
        else:
            return None
        # 4. One name.
        named = form.one("client_id")
        if named and named != client.name:
            raise _invalid("`client_id` names another client than the one that proved who it is")
        return client

    def _by_secret(self, header: bytes) -> Client:
        """RFC 6749 §2.3.1: name and secret are form-encoded each, then joined, then base64."""
        scheme, _, encoded = header.partition(b" ")
        if scheme.lower() != b"basic":
            raise _invalid("the Authorization header is not of Basic")
        try:
            text = b64decode(encoded.strip(b" "), validate=True).decode("utf-8")
            name, separator, secret = text.partition(":")
            name, secret = decode_component(name), decode_component(secret)
        except (binascii.Error, UnicodeDecodeError, Rejected):
            raise _invalid("what follows Basic is not a name and a secret") from None
        if not separator or not name or not 0 < len(secret) <= MAX_SECRET:
            raise _invalid("what follows Basic is not a name and a secret")
        client = self._catalog().clients.get(name)
        declared = client is not None and client.auth == "client_secret_basic"
        kept = (client.secret_sha256 if client is not None else None) or _NOBODY
        # Compared in any case, and as digests: the time it takes says neither who is declared nor how much
        # of a secret was right.
        same = hmac.compare_digest(digest(secret.encode()), kept)
        if client is None or not declared or not same:
            reason = "no such client" if client is None else "the secret is wrong" if declared else _OTHER
            raise _invalid(reason)
        return client

    async def _by_assertion(self, assertion: str, now_ms: int) -> Client:
        """RFC 7523 §3, with the audience of its update: a JWT that the client made, for us, for now, once.

        1. It has one reading, and says whose it is: `iss` and `sub`, which are the same client.
        2. That client is declared with this method.
        3. A key of that client's signed it, with an algorithm of that key's and that client's.
        4. `aud` is our issuer identifier and nothing else: one string. An endpoint's URL, or a list, could be
           an assertion that was made for somebody else's server (audience injection).
        5. It is in time, and not for long.
        6. Its `jti` was not used before. Last, so that nobody else can use it up.
        """
        # 1. Whose.
        try:
            jws = parse_compact(assertion, family="credential", foreign=True)
            claimed = parse_json_strict(jws.payload, Code.CREDENTIAL_MALFORMED)
            sub = claimed.get("sub") if isinstance(claimed, dict) else None
            # 2. Declared.
            catalog = self._catalog()
            client = catalog.clients.get(sub) if isinstance(sub, str) else None
            if client is None or client.auth != "private_key_jwt" or client.jwks is None:
                raise _invalid("no such client" if client is None else _OTHER)
            # 3. Signed.
            algorithms = _algorithms(client)
            keys = await self._keys(client.jwks, algorithms).keys_for(jws.kid)
            payload = verify_parsed(
                jws, keys, types=ASSERTION_TYPES, algorithms=algorithms, family="credential"
            ).payload
            if payload.get("iss") != client.name or payload.get("sub") != client.name:
                raise _invalid("`iss` of the assertion is not its `sub`")
            # 4. For us.
            if payload.get("aud") != catalog.broker.issuer:
                raise _invalid("`aud` of the assertion is not the issuer identifier, as one string")
            # 5. Now.
            expires_s = _in_time(payload, now_ms // 1000)
            jti = principal_name(payload.get("jti"), "jti", Code.CLIENT_INVALID)
        except Usage as error:
            raise Rejected(Code.CREDENTIAL_KEYS_UNAVAILABLE, error.message) from error
        except Rejected as rejected:
            if rejected.code in {Code.CLIENT_INVALID, Code.CREDENTIAL_KEYS_UNAVAILABLE}:
                raise
            raise _invalid(f"the assertion does not hold: {rejected.message}") from None
        # 6. Once.
        key = f"{client.name} {jti}"
        if not await self._first_uses.first_use(
            "client-assertion", key, keep_until_s=expires_s + 2 * LEEWAY_S
        ):
            raise _invalid("the assertion was used before")
        return client


def _algorithms(client: Client) -> tuple[Algorithm, ...]:
    return tuple(sorted(set(ALGORITHMS) & set(client.algorithms)))


def _in_time(payload: Mapping[str, Json], now_s: int) -> int:
    """`exp`. RFC 7523 §3: it MUST be there; `nbf` and `iat` may."""
    expires_s, not_before_s, issued_s = (_date(payload, claim) for claim in ("exp", "nbf", "iat"))
    if expires_s is None or now_s >= expires_s:
        raise _invalid("the assertion has expired, or does not say when it does")
    if expires_s > now_s + MAX_ASSERTION_S + LEEWAY_S:
        raise _invalid(f"the assertion lives for more than {MAX_ASSERTION_S} seconds")
    if max(not_before_s or 0, issued_s or 0) > now_s + LEEWAY_S:
        raise _invalid("the assertion is not valid yet")
    return expires_s


def _date(payload: Mapping[str, Json], claim: str) -> int | None:
    value = payload.get(claim)
    if claim not in payload:
        return None
    if type(value) is not int or value < 0:
        raise _invalid(f"`{claim}` of the assertion is not a time in whole seconds")
    return value


_NOBODY = digest(b"")
"""Of no secret: an empty one is refused before."""

_OTHER = "the client is declared with another way to authenticate"


def _invalid(reason: str) -> Rejected:
    return Rejected(Code.CLIENT_INVALID, reason)
