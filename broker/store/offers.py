"""Claim codes in the SQLite file: what waits for its agent, and is fetched once."""

from collections.abc import Callable
from dataclasses import replace

from broker.record import Private, Record
from broker.session import Session, joined
from broker.store import kept_session, sessions
from broker.store.connection import Connection, without_a_trace
from broker.store.protocols import MAX_OPEN_OFFERS, ClaimFault, NotRedeemed, Offer, StoredSession, Unmet
from broker.store.sessions import Append

KEPT_S = 3600
"""How long an offer that is over is kept: a late or a second try is told apart in the log from a guess."""


def offer(
    connection: Connection, append: Append, wanted: Offer, body: bytes, private: Private | None = None
) -> Unmet | None:
    """See `protocols.Offers`."""
    unmet = sessions.may_open(connection, wanted.session)
    if unmet is not None:
        return unmet
    (waiting,) = connection.execute(
        "SELECT count(*) FROM offer WHERE root = ? AND redeemed_ms IS NULL AND expires_s > ?",
        (wanted.root, wanted.session.opened_ms // 1000),
    ).fetchone()
    if waiting >= MAX_OPEN_OFFERS:
        return Unmet.OFFERS_OPEN
    new = connection.execute(
        "INSERT INTO offer VALUES (?, ?, ?, NULL, ?) ON CONFLICT DO NOTHING RETURNING 1",
        (wanted.code_sha256, kept_session.offer_to_text(wanted), wanted.expires_s, wanted.root),
    ).fetchone()
    if new is None:
        return Unmet.CLAIM_UNKNOWN
    append(body, private)
    return None


def redeem(
    connection: Connection,
    append: Append,
    code_sha256: str,
    *,
    actor: Session,
    now_ms: int,
    record: Callable[[Session], Record],
    jkt: str | None,
) -> StoredSession | NotRedeemed:
    """See `protocols.Offers`."""
    row = connection.execute(
        "SELECT body, expires_s, redeemed_ms FROM offer WHERE code_sha256 = ?", (code_sha256,)
    ).fetchone()
    # 1. Known, new, in time, for this agent, and with a key where there was one.
    if row is None:
        return NotRedeemed(unmet=Unmet.CLAIM_UNKNOWN, fault=ClaimFault.UNKNOWN)
    body, expires_s, redeemed_ms = row
    kept = kept_session.offer_from_text(code_sha256, body, expires_s=expires_s)
    fault = claim_fault(kept, actor=actor, now_ms=now_ms, jkt=jkt, redeemed=redeemed_ms is not None)
    if fault is not None:
        return NotRedeemed(unmet=Unmet.CLAIM_UNKNOWN, fault=fault, offered=kept.session)
    if sessions.find_session(connection, kept.session.sid) is not None:
        # Another code for the same session: whoever fetched that one has it.
        return NotRedeemed(unmet=Unmet.CLAIM_UNKNOWN, fault=ClaimFault.REDEEMED, offered=kept.session)
    # 2. What it is a part of.
    session = opened(kept, actor=actor, now_ms=now_ms, jkt=jkt)
    opening = record(session)
    child = sessions.open_session(
        connection, append, session, opening.to_bytes(), private=opening.private, actor=actor.sid
    )
    if isinstance(child, Unmet):
        return NotRedeemed(unmet=child, offered=kept.session)
    # 3. Once.
    connection.execute("UPDATE offer SET redeemed_ms = ? WHERE code_sha256 = ?", (now_ms, code_sha256))
    return child


def claim_fault(
    kept: Offer, *, actor: Session, now_ms: int, jkt: str | None, redeemed: bool
) -> ClaimFault | None:
    """Why the code is not good for this agent now. What the right one may hear comes last."""
    if actor.chain.subject != kept.agent:
        return ClaimFault.WRONG_AGENT
    if redeemed:
        return ClaimFault.REDEEMED
    if now_ms // 1000 >= min(kept.expires_s, kept.session.expires_s):
        return ClaimFault.EXPIRED
    if actor.tenant not in (None, kept.session.tenant):
        return ClaimFault.OTHER_TENANT
    if kept.session.jkt is not None and jkt is None:
        return ClaimFault.UNPROVED
    return None


def opened(kept: Offer, *, actor: Session, now_ms: int, jkt: str | None) -> Session:
    """The child, as it opens now, bound to the key of whoever fetches it, and vouched for by its issuer."""
    return joined(replace(kept.session, opened_ms=now_ms, jkt=jkt), actor)


def prune(connection: Connection, *, now_s: int, most: int) -> None:
    """Forget offers that have been over for long; a bounded number at once. One that is not there is not
    good either, so a clock that is set back brings none to life."""
    # It has the conditions of a delegation, which may have people's data in them.
    with without_a_trace(connection):
        connection.execute(
            "DELETE FROM offer WHERE code_sha256 IN"
            " (SELECT code_sha256 FROM offer WHERE expires_s < ? ORDER BY expires_s LIMIT ?)",
            (now_s - KEPT_S, most),
        )
