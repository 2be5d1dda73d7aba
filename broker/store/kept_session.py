"""A session, and an offer of one, as it is stored: to and from one JSON text."""

import json
from typing import Any, cast

from broker.canonical import Json, canonical_json
from broker.chain import Chain, Principal
from broker.limit import Limit
from broker.session import Assertion, Session
from broker.store.protocols import Offer


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
        "parent": session.parent,
        "limits": [each.to_json() for each in session.limits],
        "tenant": session.tenant,
        "jkt": session.jkt,
        "allowance": _named(session.allowance),
        "may_act": _named(session.may_act),
        "acr_claim": session.acr_claim,
        "root": session.root,
        "vouchers": list(session.vouchers),
        "impersonator": _named(session.impersonator),
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
        # What sessions that were kept by an earlier broker did not have.
        parent=body.get("parent"),
        limits=tuple(_limit(each) for each in body.get("limits", ())),
        tenant=body.get("tenant"),
        jkt=body.get("jkt"),
        allowance=_principal(body.get("allowance")),
        may_act=_principal(body.get("may_act")),
        acr_claim=body.get("acr_claim"),
        root=body.get("root"),
        vouchers=tuple(body.get("vouchers", ())),
        impersonator=_principal(body.get("impersonator")),
    )


def offer_to_text(offer: Offer) -> str:
    session = offer.session
    body: dict[str, Json] = {
        "sid": session.sid,
        "opened_ms": session.opened_ms,
        "expires_s": session.expires_s,
        "session": to_text(session),
        "agent": [offer.agent.iss, offer.agent.sub],
    }
    return canonical_json(body).decode()


def offer_from_text(code_sha256: str, text: str, *, expires_s: int) -> Offer:
    body = cast("dict[str, Any]", json.loads(text))
    session = from_text(
        body["sid"], body["session"], opened_ms=body["opened_ms"], expires_s=body["expires_s"]
    )
    return Offer(
        code_sha256=code_sha256, session=session, agent=Principal(*body["agent"]), expires_s=expires_s
    )


def _limit(body: dict[str, Any]) -> Limit:
    return Limit.of(body["tools"], body["arguments"])


def _named(principal: Principal | None) -> Json:
    return None if principal is None else [principal.iss, principal.sub]


def _principal(kept: list[str] | None) -> Principal | None:
    return None if kept is None else Principal(*kept)
