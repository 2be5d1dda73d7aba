"""The rules of a witness: those of the standard, with the requests that litewitness publishes for its tests.

Their hashes are made up so that every leaf is `2a…`, and their log is called by its key.
"""

from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.anchoring import WitnessedLog
from broker.checkpoint import Checkpoint, LogVerifier, open_text, sign, sign_text
from broker.cosignature import cosign, cosigned_at
from broker.keys import KeyRing
from broker.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, tree_hash
from broker.store.sqlite import Store
from broker.store.witnessed import WitnessedLogs, notes
from broker.witness import NotCosigned, Witness

pytestmark = pytest.mark.anyio

NOW_S = 1_790_000_000
NAME = "witness.example.com/witness"

PUBLISHED = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
PUBLISHED_KEY = f"{PUBLISHED}+5202289b+Af/cLU2Y5BJNP+r3iMDC+av9eWCD0fBJVDfzAux5zxAP"
ONE = f"""{PUBLISHED}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {PUBLISHED} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
"""
THREE = f"""{PUBLISHED}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {PUBLISHED} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
"""
FIVE = f"""{PUBLISHED}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {PUBLISHED} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
"""


def number(last: int, first: int = 0) -> str:
    """The published hash `2a FIRST 00 … LAST`."""
    return b64encode(bytes((0x2A, first)) + bytes(29) + bytes((last,))).decode()


TO_THREE = (number(0, 1), number(0, 2))
FROM_ONE_TO_FIVE = (number(0, 1), "+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=", number(0, 4))
FROM_THREE_TO_FIVE = (
    number(0, 2),
    number(0, 3),
    b64encode(bytes.fromhex("c2088815d65f60dbfa594d4e96504ab169cb6084bf0c132ab7c521fd2e0eba41")).decode(),
    number(0, 4),
)

LOG = "log.example.com/log"
LOG_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"o" * 32)
LEAVES = tuple(leaf_hash(bytes([each])) for each in range(40))


def body(old: int | str, proof: Sequence[str], note: str) -> bytes:
    return "\n".join([f"old {old}", *proof, "", note]).encode()


def grown(size: int, leaves: Sequence[bytes] = LEAVES) -> str:
    """A checkpoint of our own example's first leaves, signed."""
    checkpoint = Checkpoint(origin=LOG, size=size, root=tree_hash(leaves[:size]) if size else EMPTY_ROOT)
    return sign(checkpoint, LOG_KEY)


def proof(old: int, new: int) -> list[str]:
    return [b64encode(each).decode() for each in consistency_proof(LEAVES[:new], old)]


class Desk:
    """A witness over a store of its own."""

    def __init__(self, store: Store, keys: KeyRing) -> None:
        self.store = store
        self.logs = [LogVerifier.parse(PUBLISHED_KEY), LogVerifier(name=LOG, key=LOG_KEY.public_key())]

        async def key() -> ed25519.Ed25519PrivateKey:
            return keys.witness_key()

        self.witness = Witness(
            name=NAME,
            key=key,
            logs=lambda: [WitnessedLog(name="x", key=each) for each in self.logs],
            kept=WitnessedLogs(store),
            now_ms=lambda: NOW_S * 1000,
        )

    async def status(self, request: bytes) -> int | tuple[int, int]:
        """200, with a cosignature that holds on what was sent; or the status, and the size that is told."""
        before = await self.store.ask(notes)
        found = await self.witness.add_checkpoint(request)
        if isinstance(found, NotCosigned):
            assert await self.store.ask(notes) == before
            return found.status if found.size is None else (found.status, found.size)
        note = request.decode().partition("\n\n")[2]
        assert found.count("\n") == 1
        assert cosigned_at(note + found, await self.witness.cosigner()) == NOW_S
        return 200


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    keys = KeyRing.open(tmp_path / "keys", now_s=NOW_S)
    async with Store.open(tmp_path / "broker.db", origin="w", now_ms=lambda: NOW_S * 1000) as store:
        yield Desk(store, keys)


async def test_the_published_requests_are_answered_as_published(desk: Desk) -> None:
    assert await desk.status(body(0, (), ONE)) == 200
    assert await desk.status(body(1, TO_THREE, THREE.replace("x6go=", "x6gs="))) == 403
    assert await desk.status(body(1, TO_THREE, THREE.replace(PUBLISHED, PUBLISHED[:-1] + "1"))) == 404
    assert await desk.status(body(1, (), THREE)) == 422
    assert await desk.status(body(1, (number(0, 1), number(1, 2)), THREE)) == 422
    assert await desk.status(body(1, TO_THREE, THREE)) == 200
    assert await desk.status(body(1, FROM_ONE_TO_FIVE, FIVE)) == (409, 3)
    assert await desk.status(body(3, FROM_THREE_TO_FIVE, FIVE)) == 200


async def test_of_two_that_race_the_later_is_told_the_size_and_the_log_is_not_rolled_back(desk: Desk) -> None:
    assert await desk.status(body(0, (), ONE)) == 200
    found: list[int | tuple[int, int]] = []

    async def ask(request: bytes) -> None:
        answer = await desk.witness.add_checkpoint(request)
        found.append((answer.status, answer.size or 0) if isinstance(answer, NotCosigned) else 200)

    async with anyio.create_task_group() as group:
        group.start_soon(ask, body(1, FROM_ONE_TO_FIVE, FIVE))
        group.start_soon(ask, body(1, TO_THREE, THREE))
    assert sorted(found, key=str) == [(409, 5), 200]
    assert [note.split("\n")[1] for note in await desk.store.ask(notes)] == ["5"]


async def test_more_than_63_lines_of_proof_are_no_request(desk: Desk) -> None:
    assert await desk.status(body(0, [number(0)] * 64, ONE)) == 400
    assert await desk.status(body(0, [number(0)] * 63, ONE)) == 422


ROOT = b64encode(LEAVES[0]).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A request about a tree of a leaf or none, and its answer."""

    known: int = 0
    old: int = 0
    size: int = 0
    root: bytes = EMPTY_ROOT
    proof: tuple[str, ...] = ()
    status: int | tuple[int, int]


SMALL = {
    "empty tree": Small(status=200),
    "invalid empty root": Small(root=LEAVES[0], status=422),
    "zero empty root": Small(root=bytes(32), status=422),
    "empty tree with proof": Small(proof=(ROOT,), status=422),
    "first nonempty tree": Small(size=1, root=LEAVES[0], status=200),
    "first nonempty tree with proof": Small(size=1, root=LEAVES[0], proof=(ROOT,), status=422),
    "old size mismatch": Small(known=1, size=1, root=LEAVES[0], proof=(ROOT,), status=(409, 1)),
    "old size greater than new": Small(known=1, old=1, status=400),
    "the same again": Small(known=1, old=1, size=1, root=LEAVES[0], status=200),
    "another of the same size": Small(known=1, old=1, size=1, root=LEAVES[1], status=(409, 1)),
    "the same with proof": Small(known=1, old=1, size=1, root=LEAVES[0], proof=(ROOT,), status=422),
    "never seen, not from zero": Small(old=1, size=2, root=LEAVES[0], proof=(ROOT,), status=(409, 0)),
}


@pytest.mark.parametrize("small", SMALL.values(), ids=SMALL)
async def test_the_smallest_trees_are_answered_as_published(desk: Desk, small: Small) -> None:
    if small.known:
        assert await desk.status(body(0, (), grown(small.known))) == 200
    note = sign(Checkpoint(origin=LOG, size=small.size, root=small.root), LOG_KEY)
    assert await desk.status(body(small.old, small.proof, note)) == small.status
    if small.status == 200:
        assert await desk.status(body(small.size, (), note)) == 200


async def test_a_log_that_grows_is_cosigned_from_every_size_to_every_other(desk: Desk) -> None:
    at = 0
    for size in (1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 40):
        assert await desk.status(body(at, proof(at, size), grown(size))) == 200
        at = size
    forked = (*LEAVES[:20], leaf_hash(b"forked"), *LEAVES[21:])
    assert await desk.status(body(40, (), grown(40, forked))) == (409, 40)


MALFORMED = [
    b"",
    b"old 0\n",
    ONE.encode(),
    body("00", (), ONE),
    body("+0", (), ONE),
    body("-1", (), ONE),
    body(" 0", (), ONE),
    body(10**30, (), ONE),
    b"new 0\n\n" + ONE.encode(),
    body(0, ["AAAA"], ONE),
    body(0, [number(0) + " "], ONE),
    body(0, [number(0)[:-1]], ONE),
    body(0, [""], ONE),
    body(0, [number(0)[:-2] + "B="], ONE),  # bits to spare
    body(0, (), sign_text(grown(3).partition("\n\n")[0] + "\na \x1b line\n", LOG, LOG_KEY)),
    body(0, (), ONE).replace(b"\n", b"\r\n"),
    body(0, (), ONE) + b"\xff",
    body(0, (), ONE.replace("\n1\n", "\n01\n")),
    body(0, (), ONE.replace("\n1\n", "\n-1\n")),
    body(0, (), "\n\n" + ONE),
    body(0, (), f"{PUBLISHED}\n1\n"),
]


@pytest.mark.parametrize("request_body", MALFORMED)
async def test_what_is_not_written_as_the_standard_says_is_no_request(
    desk: Desk, request_body: bytes
) -> None:
    assert await desk.status(request_body) == 400


async def test_a_checkpoint_without_a_signature_of_the_log_is_forbidden_whoever_else_signed_it(
    desk: Desk,
) -> None:
    text = grown(3).partition("\n\n")[0] + "\n"
    for note in (
        text + "\n" + sign_text(text, LOG, OTHER_KEY).rpartition("\n\n")[2],
        text + "\n" + sign_text(text, "other.example", LOG_KEY).rpartition("\n\n")[2],
        text + "\n" + cosign(text, LOG, LOG_KEY, now_s=1),
        text + "\n" + "nonsense\n",
        text + "\n",
    ):
        assert await desk.status(body(0, (), note)) in {400, 403}


async def test_what_others_signed_is_neither_judged_nor_kept(desk: Desk) -> None:
    strange = "— other.example " + b64encode(b"x" * 2000).decode() + "\n"
    note = grown(3) + strange * 16
    assert await desk.status(body(0, (), note)) == 200
    (kept,) = await desk.store.ask(notes)
    assert "other.example" not in kept
    assert open_text(kept, desk.logs[1]) == note.partition("\n\n")[0] + "\n"
    assert cosigned_at(kept, await desk.witness.cosigner()) == NOW_S


async def test_a_note_with_its_one_signature_a_thousand_times_is_no_request(desk: Desk) -> None:
    note = grown(3)
    line = note.rpartition("\n\n")[2]
    assert await desk.status(body(0, (), note + line * 1000)) == 400
    assert await desk.status(body(0, (), note + line * 31)) == 200


async def test_extension_lines_of_another_log_are_cosigned_too(desk: Desk) -> None:
    text = grown(3).partition("\n\n")[0] + "\nan extension\n"
    assert await desk.status(body(0, (), sign_text(text, LOG, LOG_KEY))) == 200
    assert await desk.status(body(3, proof(3, 5), grown(5))) == 200


async def test_a_log_with_two_keys_may_sign_with_either(desk: Desk) -> None:
    desk.logs.append(LogVerifier(name=LOG, key=OTHER_KEY.public_key()))
    checkpoint = Checkpoint(origin=LOG, size=3, root=tree_hash(LEAVES[:3]))
    assert await desk.status(body(0, (), sign(checkpoint, OTHER_KEY))) == 200
    assert await desk.status(body(3, proof(3, 5), grown(5))) == 200


async def test_the_witness_s_key_is_its_own_and_stays(desk: Desk, tmp_path: Path) -> None:
    keys = KeyRing.open(tmp_path / "keys", now_s=NOW_S)
    raw = keys.witness_key().private_bytes_raw()
    assert raw != keys.log_key.private_bytes_raw()
    assert KeyRing.open(tmp_path / "keys", now_s=NOW_S).witness_key().private_bytes_raw() == raw
    assert (tmp_path / "keys" / "witness.pem").stat().st_mode & 0o777 == 0o600
    assert b64decode(str(await desk.witness.cosigner()).split("+", 2)[2])[0] == 4


async def test_a_log_that_says_it_is_larger_than_can_be_kept_is_refused_and_disturbs_nobody(
    desk: Desk,
) -> None:
    before = desk.store.ready()
    for size in (2**63, 10**30):
        note = sign(Checkpoint(origin=LOG, size=size, root=tree_hash(LEAVES)), LOG_KEY)
        assert await desk.status(body(0, (), note)) == 400
        assert desk.store.ready() == before
    assert await desk.status(body(0, (), grown(3))) == 200
