"""`POST /token` (RFC 6749 §3.2): one grant after another, each by its own flow."""

from collections.abc import Iterable, Mapping

from broker.canonical import Json
from broker.errors import Code, Rejected
from broker.server.oauth.endpoint import Asked, Handler, Told
from broker.verify import ALGORITHMS

PATH = "/token"


class Grants:
    """The grant types that are taken, and the flow of each."""

    def __init__(self, flows: Mapping[str, Handler]) -> None:
        self._flows = dict(flows)

    @property
    def types(self) -> tuple[str, ...]:
        """`grant_types_supported` (RFC 8414 §2)."""
        return tuple(self._flows)

    async def __call__(self, asked: Asked) -> Told:
        """The answer of the grant's flow.

        Raises:
            Rejected: `exchange.malformed` without a grant type, `exchange.grant_type` with one that is not
                taken here; or whatever the flow raises.
        """
        grant_type = asked.form.one("grant_type")
        if not grant_type:
            raise Rejected(Code.EXCHANGE_MALFORMED, "`grant_type` is missing")
        flow = self._flows.get(grant_type)
        if flow is None:
            known = ", ".join(self._flows)
            raise Rejected(Code.EXCHANGE_GRANT_TYPE, f"`grant_type` is not one that is taken here: {known}")
        return await flow(asked)


def token_metadata(issuer: str, grants: Grants, detail_types: Iterable[str]) -> dict[str, Json]:
    """What RFC 8414 §2 and RFC 9396 §10 have of this endpoint, and nothing that is not so.

    `none` is among the ways to authenticate: a subject token proves itself.
    """
    return {
        "token_endpoint": f"{issuer}{PATH}",
        "grant_types_supported": list(grants.types),
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "authorization_details_types_supported": list(detail_types),
    }
