"""Who is asking: the credential of the message in hand, and the session that it opened."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from broker.server.challenge import Challenge
from broker.session import Session


@dataclass(slots=True, kw_only=True)
class Visit:
    """One message, or one stdio process.

    Attributes:
        credential: the only copy outside the transport; no repr shows it.
        jkt: thumbprint of the key whose possession was proved with this message (RFC 9449).
        nonce: to make the next proof with, where this one's is about to end.
        recorded: a refusal of this message stands in the log already, so the next layer adds none.
        reached: the SDK found nothing wrong with the message and handed it to `tools/call`.
        request_id: JSON-RPC id of that call.
        challenge: its subject has to sign in again first. Told as one where no part of an answer was sent.
    """

    credential: str = field(repr=False)
    session: Session
    jkt: str | None = None
    nonce: str | None = None
    recorded: bool = False
    reached: bool = False
    request_id: str | int | None = None
    challenge: Challenge | None = None


visiting: ContextVar[Visit] = ContextVar("visiting")
"""Set by the gate for each HTTP request and by `broker stdio` once. The SDK runs each message in the
context of whoever sent it, in both eras and on each transport, so a handler reads its own."""
