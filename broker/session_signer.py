"""Credentials of our own, signed by a key that stays published as long as they live."""

from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.session import Session
from broker.session_claims import SessionClaims

AHEAD_S = 15 * 60
"""What a key is noted to live longer than was asked: so that not every credential writes to the disk."""


@dataclass(slots=True, kw_only=True)
class SessionSigner:
    """Signs for whatever session it is given: who may have it is decided before.

    Attributes:
        keys: the broker's own.
    """

    keys: KeyRing
    _until: dict[str, int] = field(default_factory=dict[str, int], init=False)
    _turn: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def __call__(self, session: Session, *, iss: str) -> str:
        """The session's credential, for the broker `iss`.

        1. The key's file says, on the disk, that it is needed until the session ends: whoever rotates the
           keys now, in any process, keeps it published. Then the credential is signed, by that very key.
        2. One task writes at a time, in a thread: it waits for the lock of the directory.

        Raises:
            KeysUnsafe: it could not be written; nothing was signed.
        """
        key = self.keys.active
        if self._until.get(key.kid, 0) < session.expires_s:
            # 2.
            async with self._turn:
                key = self.keys.active
                if self._until.get(key.kid, 0) < session.expires_s:
                    until_s = session.expires_s + AHEAD_S
                    await to_thread.run_sync(self.keys.signed_until, key.kid, until_s)
                    # Of the older keys nothing is signed any more.
                    self._until = {key.kid: until_s}
        # 1.
        return TokenMinter(lambda: key).mint_session_credential(claims_of(session, iss=iss))


def claims_of(session: Session, *, iss: str) -> SessionClaims:
    """What the session's credential says: who, for whom, through whom, until when."""
    chain = session.chain
    return SessionClaims(
        iss=iss,
        sub=chain.subject.sub,
        sub_iss=None if chain.subject.iss == iss else chain.subject.iss,
        client_id=chain.actors[0].sub if chain.actors else None,
        act=chain.to_act(),
        roles=session.roles,
        sid=session.sid,
        iat=session.opened_ms // 1000,
        exp=session.expires_s,
        acr=session.acr,
        jkt=session.jkt,
    )
