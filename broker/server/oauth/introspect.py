"""POST /introspect: is this token good? And where the backend leaves it to us, its one use (RFC 7662)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from broker.canonical import Json
from broker.catalog import Backend, Catalog, Client
from broker.errors import Code, Rejected
from broker.introspection import (
    INTROSPECTION_MEDIA_TYPE,
    SignedAnswer,
    active,
    inactive,
    introspection_request,
)
from broker.server.oauth.answers import Answer, OAuthRefusal
from broker.server.oauth.endpoint import Asked
from broker.spend import Active, Presented, Spender

_JSON = "application/json"


class SignsAnswers(Protocol):
    """`mint.TokenMinter`."""

    def mint_introspection(self, answer: SignedAnswer) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """The handler of the endpoint."""

    spender: Spender
    catalog: Callable[[], Catalog]
    minter: SignsAnswers

    async def __call__(self, asked: Asked) -> Answer | OAuthRefusal:
        """Answer one question about one token.

        What must hold before anything of a token is told:

        1. The caller has proved that it is a client, and the client is a backend (RFC 7662 §2.1, §4:
           else anybody could try tokens here).
        2. The question is well-formed.
        3. The token is that backend's, good, and where the broker spends for the backend, spent by this very
           question: see `Spender`. Of all others one answer is given, whatever is wrong with them.

        Raises:
            Rejected: 1 or 2 does not hold; the endpoint records and answers it.
            LogUnavailable: nothing is known of the token.
        """
        # 1. A backend.
        catalog = self.catalog()
        client, backend = backend_of(asked.client, catalog)

        # 2. A question.
        question = introspection_request(asked.form.one, audience=backend.audience)

        # 3. The token.
        presented = Presented(
            token=question.token,
            client=client.name,
            backend=backend,
            via="introspect",
            told=question.told,
            consume_id=question.consume_id,
        )
        spends = backend.single_use == "introspect"
        found = await (self.spender.spend if spends else self.spender.look)(presented)
        told = active(found.claims, consumed=spends) if isinstance(found, Active) else inactive()
        if _wants_jwt(asked.scope):
            aud = (backend.audience, client.name)
            return self._signed(told, issuer=catalog.broker.issuer, aud=aud, now_ms=asked.now_ms)
        return Answer(status=200, body=told)

    def _signed(self, told: dict[str, Json], *, issuer: str, aud: tuple[str, str], now_ms: int) -> Answer:
        answer = SignedAnswer(iss=issuer, aud=aud, iat=now_ms // 1000, token_introspection=told)
        return Answer(
            status=200,
            body=self.minter.mint_introspection(answer).encode("ascii"),
            media_type=INTROSPECTION_MEDIA_TYPE.encode("ascii"),
        )


def backend_of(client: Client | None, catalog: Catalog) -> tuple[Client, Backend]:
    """The backend that a client is.

    Raises:
        Rejected: `client.invalid` where nobody proved to be a client, `client.unauthorized` where the client
            is no backend.
    """
    if client is None:
        raise Rejected(Code.CLIENT_INVALID, "no client authentication, and this is for backends alone")
    backend = None if client.backend is None else catalog.backends.get(client.backend)
    if backend is None:
        raise Rejected(Code.CLIENT_UNAUTHORIZED, "this client is no backend: it has no tokens to ask about")
    return client, backend


def _wants_jwt(scope: Scope) -> bool:
    """Whether the caller asks for a signed answer (RFC 9701 §4), and likes none better."""
    quality: dict[str, float] = {}
    for name, value in scope["headers"]:
        if name == b"accept":
            for part in value.decode("latin-1").split(","):
                media, *parameters = (each.strip().lower() for each in part.split(";"))
                quality[media] = _quality(parameters)
    ours = quality.get(INTROSPECTION_MEDIA_TYPE, 0.0)
    return ours > 0 and ours >= quality.get(_JSON, 0.0)


def _quality(parameters: list[str]) -> float:
    """RFC 9110 §12.4.2; what is not one counts as none."""
    for each in parameters:
        if each.startswith("q="):
            try:
                return float(each[2:])
            except ValueError:
                return 0.0
    return 1.0
