"""Nonces that the broker gives out for proofs, and the proofs that it has seen (RFC 9449 §8, §11.1)."""

import hmac
from collections.abc import Callable, Iterable
from hashlib import sha256

from broker.dpop import Expected, Proof, check_proof
from broker.errors import Code, Rejected
from broker.jws import encode_part

NONCE_S = 60
"""A new nonce so often. Each is taken until the one after it is replaced: for one to two minutes."""

MAX_SEEN = 262_144
MAX_SEEN_OF_ONE = 65_536
"""Proofs that are remembered, of everybody and of one key: at the bound, no more are taken."""

_NONCE_BYTES = 18
_NAME_BYTES = 16


class Proofs:
    """Checks the proofs of clients, each of which is good once.

    A nonce lives by a clock that nobody sets, and its key dies with the process: no step of the wall clock
    and no restart makes an old proof new. What was seen is remembered for as long as its nonce is taken.
    """

    def __init__(self, *, key: bytes, monotonic: Callable[[], float]) -> None:
        """Args:
        key: 32 random bytes, made at the start of the process and kept nowhere.
        monotonic: seconds.
        """
        self._key = key
        self._monotonic = monotonic
        self._bucket = -1
        self._nonces: tuple[str, ...] = ()
        self._seen: tuple[_Seen, ...] = ()

    def __repr__(self) -> str:
        return f"Proofs(seen={sum(len(each) for each in self._seen)})"

    def nonce(self) -> str:
        """The nonce to make the next proof with."""
        self._turn()
        return self._nonces[0]

    def fresher(self, proof: Proof) -> str | None:
        """The nonce to make the next proof with, where this one's is about to end (RFC 9449 §8.2)."""
        nonce = self.nonce()
        return None if proof.nonce == nonce else nonce

    def proof_of(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        htm: str,
        htu: str,
        now_s: int,
        token: str | None = None,
    ) -> Proof | None:
        """The proof of a request, checked; None where it has none. It is not marked as seen yet: see `once`.

        Args:
            headers: of the request, names in lower case.
            htm, htu, token: see `dpop.Expected`.

        Raises:
            Rejected: `credential.proof`, `credential.nonce`.
        """
        shown = [value.decode("latin-1") for name, value in headers if name == b"dpop"]
        if not shown:
            return None
        self._turn()
        expected = Expected(htm=htm, htu=htu, now_s=now_s, nonces=self._nonces, token=token)
        return check_proof(shown, expected, family="credential")

    def once(self, proof: Proof) -> None:
        """Mark the proof as seen, after its sender is known: who could write here without could fill it.

        What must hold:

        1. Its nonce is still taken: it may have ended since it was checked, and what was seen with it.
        2. No proof of that key had this `jti` at this URL, in all the time that one could be shown again.
        3. There is room. To forget one that is alive would be to take it twice.

        Looking and marking are one step: there is no `await` in here.

        Raises:
            Rejected: `credential.proof` where it was seen before, `credential.nonce` where its nonce has
                ended, `session.busy` where there is no room.
        """
        self._turn()
        # 1. Alive.
        if proof.nonce not in self._nonces:
            raise Rejected(Code.CREDENTIAL_NONCE, "make the proof with the nonce that this answer gives")
        # 2. New.
        name = sha256(f"{proof.htu}\0{proof.jti}".encode()).digest()[:_NAME_BYTES]
        if any(seen.has(proof.jkt, name) for seen in self._seen):
            raise Rejected(
                Code.CREDENTIAL_PROOF, "the proof was used before; each request has one of its own"
            )
        # 3. Room.
        if (
            sum(len(seen) for seen in self._seen) >= MAX_SEEN
            or sum(seen.count(proof.jkt) for seen in self._seen) >= MAX_SEEN_OF_ONE
        ):
            raise Rejected(Code.SESSION_BUSY, "too many proofs in too short a time; try again in a minute")
        self._seen[self._nonces.index(proof.nonce)].add(proof.jkt, name)

    def _turn(self) -> None:
        """Nonces, the newest first, and what was seen with each, as they are at this moment."""
        bucket = int(self._monotonic() // NONCE_S)
        if bucket == self._bucket:
            return
        kept = self._seen[:1] if bucket == self._bucket + 1 and self._seen else (_Seen(),)
        self._bucket = bucket
        self._nonces = (self._nonce_of(bucket), self._nonce_of(bucket - 1))
        self._seen = (_Seen(), *kept)

    def _nonce_of(self, bucket: int) -> str:
        made = hmac.digest(self._key, b"dpop-nonce\0" + str(bucket).encode(), "sha256")
        return encode_part(made[:_NONCE_BYTES])


class _Seen:
    """The proofs that came with one nonce."""

    __slots__ = ("_count", "_of")

    def __init__(self) -> None:
        self._of: dict[str, set[bytes]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, jkt: str, name: bytes) -> bool:
        return name in self._of.get(jkt, ())

    def count(self, jkt: str) -> int:
        return len(self._of.get(jkt, ()))

    def add(self, jkt: str, name: bytes) -> None:
        self._of.setdefault(jkt, set()).add(name)
        self._count += 1
