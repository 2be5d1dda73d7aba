"""A transaction token at the token endpoint: from a form to an answer."""

from broker.errors import Code, Rejected
from broker.exchange import TAKEN_TYPES, TXN_TOKEN, exchange_response, scopes
from broker.issue import Denied
from broker.server.oauth.answers import Answer, refusal_of_decision
from broker.server.oauth.endpoint import Asked, Told
from broker.transaction import TxnAsk, TxnIssuer
from broker.txn_token import OWN_RCTX, OWN_TCTX, context_of

_NOT_HERE = ("resource", "actor_token", "actor_token_type", "authorization_details")


class TxnTokens:
    """`requested_token_type=urn:ietf:params:oauth:token-type:txn_token`."""

    def __init__(self, issuer: TxnIssuer) -> None:
        self._issuer = issuer

    async def __call__(self, asked: Asked) -> Told:
        """Answer one request for a transaction token.

        1. There is a subject token of a kind that is taken: one that opens a session, or a transaction token.
        2. One `audience` is named, and nothing that belongs to another exchange.
        3. `scope`, `request_context` and `request_details` are what they are called.
        4. The answer says `N_A`: it is no access token (RFC 8693 §2.2.1). Never with a refresh token.

        Raises:
            Rejected, LogUnavailable.
        """
        form = asked.form
        # 1. Subject.
        kind = form.one("subject_token_type")
        if not form.one("subject_token") or kind not in TAKEN_TYPES | {TXN_TOKEN}:
            raise Rejected(
                Code.EXCHANGE_MALFORMED, "`subject_token` or its type is missing, or of a kind not taken here"
            )
        # 2. One target.
        audiences = form.parameters.get("audience", ())
        if len(audiences) != 1:
            raise Rejected(Code.EXCHANGE_TARGET, "`audience` is the trust domain, and nothing else")
        for name in _NOT_HERE:
            if form.one(name):
                raise Rejected(Code.EXCHANGE_MALFORMED, f"`{name}` is for other kinds of token")
        # 3. What for.
        ask = TxnAsk(
            subject_token=form.one("subject_token"),
            replaces=kind == TXN_TOKEN,
            client=asked.client,
            audience=audiences[0],
            scope=scopes(form.one("scope")),
            tctx=context_of(form.one("request_details"), "details", OWN_TCTX),
            rctx=context_of(form.one("request_context"), "context", OWN_RCTX),
            jkt=asked.jkt,
        )
        issued = await self._issuer.issue(ask)
        if isinstance(issued, Denied):
            return refusal_of_decision(issued.refused)
        # 4. The answer.
        claims = issued.claims
        body = exchange_response(
            token=issued.token,
            issued_token_type=TXN_TOKEN,
            token_type="N_A",  # noqa: S106 - what it is called
            expires_in=claims.exp - claims.iat,
            scope=" ".join(claims.scope),
        )
        return Answer(status=200, body=body)
