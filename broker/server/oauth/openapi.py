"""What the OAuth endpoints take and answer, as an OpenAPI 3.1 description that tools can read."""

from broker import __version__
from broker.canonical import Json
from broker.exchange import GRANT_TYPE, REQUESTED_TYPES, TAKEN_TYPES, TXN_TOKEN
from broker.introspection import INTROSPECTION_MEDIA_TYPE
from broker.request import METHODS

PATH = "/openapi.json"

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Object = dict[str, Json]


def description(issuer: str) -> Object:
    """The document (OpenAPI 3.1.0).

    Args:
        issuer: where the endpoints are.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tool-token-broker",
            "version": __version__,
            "description": "The OAuth endpoints of the broker, and what a client reads before it knocks.",
        },
        "servers": [{"url": issuer}],
        "paths": {
            "/token": {"post": _token()},
            "/introspect": {"post": _introspect()},
            "/revoke": {"post": _revoke()},
            "/verify/{backend}": _verify(),
            "/.well-known/oauth-authorization-server": {
                "get": _document("metadata", "Metadata of the authorization server (RFC 8414).")
            },
            "/.well-known/oauth-protected-resource": {
                "get": _document("resourceMetadata", "Metadata of the MCP endpoint (RFC 9728).")
            },
            "/.well-known/jwks.json": {"get": _jwks()},
        },
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "clientSecret": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "client_secret_basic (RFC 6749 §2.3.1). With private_key_jwt "
                    "(RFC 7523 §2.2), the form has `client_assertion` and its type instead.",
                },
                "gateway": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Gateway-Authorization",
                    "description": "`Basic …` of the client that is the backend.",
                },
            },
        },
    }


_TEXT: Object = {"type": "string"}

_ERROR: Object = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": _TEXT,
        "error_description": _TEXT,
        "broker_code": {"type": "string", "description": "A stable code of the broker's."},
        "acr_values": _TEXT,
        "max_age": {"type": "integer"},
    },
    "additionalProperties": False,
}


def _object(required: tuple[str, ...], properties: Object, *, more: bool = True) -> Object:
    """An object; closed where nobody may add a member."""
    found: Object = {"type": "object", "required": list(required), "properties": properties}
    if not more:
        found["additionalProperties"] = False
    return found


def _text(description: str, **more: Json) -> Object:
    return {"type": "string", "description": description, **more}


def _answer(description: str, media_type: str, schema: Object) -> Object:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _error(description: str) -> Object:
    return _answer(description, _JSON, {"$ref": "#/components/schemas/Error"})


_COMMON: Object = {
    "400": _error("The request is not well-formed, or is refused."),
    "401": _error("Client authentication failed (RFC 6749 §5.2)."),
    "413": _error("The body is too large."),
    "429": _error("Too many at once, or a rate is used up."),
    "503": _error("Nothing was done: the log cannot be written, or the broker is closing. Come again."),
}

_CLIENT: Object = {
    "client_id": _text("Only beside a client authentication, and of the same client."),
    "client_assertion": _text("private_key_jwt (RFC 7523 §2.2)."),
    "client_assertion_type": {"type": "string", "enum": [_JWT_BEARER]},
}


def _post(operation: str, summary: str, form: Object, answers: Object, *, without_client: bool) -> Object:
    """An endpoint that takes a form."""
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{"clientSecret": []}, *([{}] if without_client else [])],
        "requestBody": {"required": True, "content": {_FORM: {"schema": form}}},
        "responses": answers | _COMMON,
    }


def _token() -> Object:
    taken: list[Json] = [*sorted(TAKEN_TYPES)]
    requested: list[Json] = [*sorted(REQUESTED_TYPES)]
    form = _object(
        ("grant_type",),
        {
            "grant_type": _text(
                "Of a token exchange (RFC 8693 §2.1) or another one that the metadata names.",
                examples=[GRANT_TYPE],
            ),
            "subject_token": _text("A session credential."),
            "subject_token_type": {"type": "string", "enum": [*taken, TXN_TOKEN]},
            "actor_token": _text("A session credential of who is to act."),
            "actor_token_type": {"type": "string", "enum": taken},
            "resource": _text("Resource identifier of the one target (RFC 8707).", format="uri"),
            "audience": _text("Name of the one target."),
            "scope": _text("The action."),
            "requested_token_type": {"type": "string", "enum": requested},
            "authorization_details": _text("RFC 9396: one object, as JSON."),
            "request_details": _text("Of a transaction token: a JSON object for its `tctx`."),
            "request_context": _text("Of a transaction token: a JSON object for its `rctx`."),
            **_CLIENT,
        },
    )
    issued = _object(
        ("access_token", "token_type"),
        {
            "access_token": _TEXT,
            "issued_token_type": _TEXT,
            "token_type": {"type": "string", "enum": ["Bearer", "DPoP", "N_A"]},
            "expires_in": {"type": "integer", "minimum": 0},
            "scope": _TEXT,
            "authorization_details": {"type": "array"},
        },
    )
    return _post(
        "token",
        "Exchange a session for a token (RFC 8693).",
        form,
        {"200": _answer("A token (RFC 8693 §2.2.1).", _JSON, issued)},
        without_client=True,
    )


def _introspect() -> Object:
    form = _object(
        ("token",),
        {
            "token": _TEXT,
            "token_type_hint": _text("Passed over."),
            "consume_id": _text(
                "The caller's own id of the request that brought the token: with the same one, the same "
                "caller is answered the same again while the token lives.",
                pattern=r"^[!-~]([ -~]{0,126}[!-~])?$",
            ),
            "method": {"type": "string", "enum": list(METHODS), "description": "Of that request."},
            "target": _text("Path and query of that request, as received.", pattern=r"^/[!-\"$-~]*$"),
            "location": _text("In place of `target`: with the audience in front."),
            "body_sha256": _text("base64url SHA-256 of its body.", pattern="^[A-Za-z0-9_-]{43}$"),
            **_CLIENT,
        },
    )
    schema: Object = {
        "oneOf": [
            _object(("active",), {"active": {"const": False}}, more=False),
            _object(
                (
                    "active",
                    "consumed",
                    "scope",
                    "client_id",
                    "token_type",
                    "exp",
                    "iat",
                    "nbf",
                    "sub",
                    "aud",
                    "iss",
                    "jti",
                ),
                {
                    "active": {"const": True},
                    "consumed": {
                        "type": "boolean",
                        "description": "Whether this question was the token's one use.",
                    },
                    **dict.fromkeys(("scope", "client_id", "sub", "aud", "iss", "jti", "txn", "sid"), _TEXT),
                    "sub_id": _object(
                        ("format", "iss", "sub"),
                        {"format": {"const": "iss_sub"}, "iss": _TEXT, "sub": _TEXT},
                        more=False,
                    ),
                    "tenant": _TEXT,
                    "token_type": {"type": "string", "enum": ["Bearer", "DPoP"]},
                    **{key: {"type": "integer"} for key in ("exp", "iat", "nbf", "auth_time")},
                    "act": {"type": "object"},
                    "cnf": {"type": "object"},
                    "acr": _TEXT,
                    "amr": {"type": "array", "items": _TEXT},
                    "authorization_details": {"type": "array"},
                    "log": {"type": "object"},
                },
                more=False,
            ),
        ]
    }
    told: Object = {
        "description": "`active` alone where the token is not good, for whatever reason (RFC 7662 §2.2).",
        "content": {
            _JSON: {"schema": schema},
            INTROSPECTION_MEDIA_TYPE: {"schema": _text("The same, signed (RFC 9701).")},
        },
    }
    return _post(
        "introspect",
        "Whether a token is good, for the backend that it is for (RFC 7662); and its one use.",
        form,
        {"200": told},
        without_client=False,
    )


def _revoke() -> Object:
    form = _object(
        ("token",),
        {
            "token": _text("A call token, or the credential of a session."),
            "token_type_hint": _text("Passed over."),
            "subject_token": _text("The credential of a call token's session, in place of a client."),
            **_CLIENT,
        },
    )
    done = _object((), {}, more=False)
    return _post(
        "revoke",
        "End a token, or a session with everything below it (RFC 7009).",
        form,
        {"200": _answer("It is good no more, if it ever was.", _JSON, done)},
        without_client=True,
    )


def _verify() -> Object:
    names = ("Subject", "Subject-Issuer", "Tenant", "Agent", "Txn", "Tool", "Scope")
    headers: Object = {f"Broker-{name}": {"schema": _TEXT} for name in names}
    operation: Object = {
        "security": [{"gateway": []}],
        "responses": {
            "200": {"description": "The request may pass; the token is spent.", "headers": headers},
            "401": _error("There is no token that is good for this request (RFC 6750 §3.1)."),
            "403": _error("The gateway, or what it tells of the request, is not good."),
            "503": _error("Nothing is known: the log cannot be written, or the broker is closing."),
        },
    }
    return {
        "summary": "Whether a gateway may let a request pass: for nginx auth_request.",
        "parameters": [
            {"name": "backend", "in": "path", "required": True, "schema": _TEXT},
            _header("X-Original-Method", {"type": "string", "enum": list(METHODS)}),
            _header("X-Original-URI", {"type": "string", "pattern": r"^/[!-\"$-~]*$"}),
            _header("X-Original-Framing", {"type": "string", "pattern": r"^HTTP/1\.[01];[0-9]*;[a-z]*$"}),
        ],
        "get": {"operationId": "verify", **operation},
        "post": {"operationId": "verifyByPost", **operation},
    }


def _header(name: str, schema: Object) -> Object:
    return {"name": name, "in": "header", "required": True, "schema": schema}


def _document(operation: str, summary: str) -> Object:
    return {
        "operationId": operation,
        "summary": summary,
        "security": [],
        "responses": {"200": _answer(summary, _JSON, {"type": "object"})},
    }


def _jwks() -> Object:
    keys = _object(("keys",), {"keys": {"type": "array", "items": {"type": "object"}}})
    return {
        "operationId": "keys",
        "summary": "The public keys (RFC 7517 §5).",
        "security": [],
        "responses": {"200": _answer("A JWK Set.", "application/jwk-set+json", keys)},
    }
