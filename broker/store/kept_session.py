"""A session as it is stored: to and from one JSON text."""

import json
from typing import Any, cast

from broker.canonical import Json, canonical_json
from broker.chain import Chain, Principal
from broker.session import Assertion, Session


def to_text(session: Session) -> str:
    body: dict[str, Json] = {
        "kind": session.kind,
        "issuer": session.issuer,
        "chain": [[each.iss, each.sub] for each in (session.chain.subject, *session.chain.actors)],
        "roles": list(session.roles),
        "assertions": [[each.role, each.because] for each in session.assertions],
        "acr": session.acr,
        "amr": list(session.amr),
        "auth_time": session.auth_time,
    }
    return canonical_json(body).decode()


def from_text(sid: str, text: str, *, opened_ms: int, expires_s: int) -> Session:
    body = cast("dict[str, Any]", json.loads(text))
    subject, *actors = (Principal(iss, sub) for iss, sub in body["chain"])
    return Session(
        sid=sid,
        kind=body["kind"],
        issuer=body["issuer"],
        chain=Chain(subject, tuple(actors)),
        roles=tuple(body["roles"]),
        assertions=tuple(Assertion(role=role, because=because) for role, because in body["assertions"]),
        opened_ms=opened_ms,
        expires_s=expires_s,
        acr=body["acr"],
        amr=tuple(body["amr"]),
        auth_time=body["auth_time"],
    )
