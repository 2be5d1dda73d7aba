"""The JWT bearer grant at `/token` (RFC 7523 §2.1; ID-JAG §4.4): an assertion for a session of our own."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from broker.assertion import Wanted
from broker.canonical import Json
from broker.catalog import Catalog
from broker.errors import Code, Rejected
from broker.grants import AssertionGrants
from broker.server.oauth.answers import Answer, OAuthRefusal
from broker.server.oauth.endpoint import Asked, Told
from broker.session_signer import SessionSigner

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUTHORIZE = "/authorize"
ID_JAG_PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"

_OF_THE_GRANT = ("credential.", "session.")


class JwtBearer:
    """`grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer`."""

    def __init__(
        self, *, grants: AssertionGrants, signer: SessionSigner, catalog: Callable[[], Catalog]
    ) -> None:
        self._grants = grants
        self._signer = signer
        self._catalog = catalog

    async def __call__(self, asked: Asked) -> Told:
        """Answer one grant.

        1. There is an assertion, and nothing that would be passed over.
        2. It opens a session, once: see `grants`. Whatever is wrong with it, whoever shows it hears one
           answer: `invalid_grant` (RFC 7523 §3.1). The log has the reason.
        3. The answer is an access token for this broker, and no refresh token: whoever needs another session
           shows another assertion (ID-JAG §4.4.3).

        Raises:
            Rejected: for the client, the form, or keys that cannot be fetched now. LogUnavailable.
        """
        # 1. An assertion.
        assertion = asked.form.one("assertion")
        if not assertion:
            raise Rejected(Code.EXCHANGE_MALFORMED, "`assertion` is missing")
        if asked.form.one("authorization_details"):
            raise Rejected(
                Code.EXCHANGE_DETAILS, "this grant opens a session: `authorization_details` is for a call"
            )
        wanted = Wanted(
            client=asked.client,
            resources=asked.form.parameters.get("resource", ()) + asked.form.parameters.get("audience", ()),
            scopes=tuple(each for each in asked.form.one("scope").split(" ") if each),
            jkt=asked.jkt,
        )
        # 2. A session.
        try:
            granted = await self._grants(assertion, wanted, now_ms=asked.now_ms)
        except Rejected as rejected:
            told = rejected.code.startswith(_OF_THE_GRANT)
            if not told or rejected.code is Code.CREDENTIAL_KEYS_UNAVAILABLE:
                raise
            return OAuthRefusal(
                status=400,
                error="invalid_grant",
                description="The assertion is not accepted.",
                code=rejected.code,
                reason=rejected.message,
            )
        # 3. A token.
        session = granted.session
        body: dict[str, Json] = {
            "access_token": await self._signer(session, iss=self._catalog().broker.issuer),
            "token_type": "Bearer" if session.jkt is None else "DPoP",
            "expires_in": session.expires_s - asked.now_ms // 1000,
        }
        if granted.scopes:
            body["scope"] = " ".join(granted.scopes)
        return Answer(status=200, body=body)


def grant_metadata(catalog: Catalog) -> dict[str, Json]:
    """What the metadata of the authorization server says of identity assertions (ID-JAG §7).

    An authorization endpoint is named because clients of that grant, the MCP SDK's among them, read no
    metadata without one; RFC 8414 §2 asks for none here. It says no: see `nothing_begins_here`.
    """
    if all(issuer.kind != "id-jag" for issuer in catalog.issuers.values()):
        return {}
    return {
        "authorization_grant_profiles_supported": [ID_JAG_PROFILE],
        "authorization_endpoint": f"{catalog.broker.issuer}{AUTHORIZE}",
    }


async def nothing_begins_here(_request: Request) -> Response:
    """No grant begins with a browser (RFC 6749 §4.1.2.1), and nobody is sent anywhere: no redirect."""
    body = {
        "error": "unsupported_response_type",
        "error_description": "Nobody signs in here. Sessions are opened by assertion, at the token endpoint.",
    }
    return JSONResponse(body, status_code=400, headers={"cache-control": "no-store"})
