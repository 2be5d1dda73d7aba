"""The signing keys: made on first start, rotated, published; and the log's own key.

A directory of the owner's alone, one file a key:

    KID.pem     an ES256 private key; KID is its RFC 7638 thumbprint
    KID.json    when it was made, when it was retired, and until when something that it signed may live
    log.pem     the Ed25519 key that signs checkpoints, and nothing else
    witness.pem the Ed25519 key that cosigns those of other logs; made when it is first needed

A file appears whole or not at all, and its key before what describes it: so whoever reads needs no lock,
and a crash at any moment leaves a directory that can be used.
"""

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.canonical import Json, canonical_json, digest
from broker.claims import LEEWAY_S, MAX_TTL_S
from broker.errors import KeysUnsafe
from broker.jws import encode_part
from broker.mint import SigningKey
from broker.verify import KeySet, PublicKey

_LOG_KEY = "log.pem"
_WITNESS_KEY = "witness.pem"
_LOCK = ".lock"
_TAIL_S = MAX_TTL_S + 2 * LEEWAY_S
"""After it was retired, a key is published for as long as a call token of its may be taken. One leeway is
the backend's; the other is for a running broker to notice that another process retired the key."""

_BURIED_S = 30 * 24 * 3600
"""How long after a key's last token it is deleted: a clock that jumped ahead may come back."""

LOCK_S = 10.0
"""How long to wait for another process. Each holds the lock for milliseconds."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """A signing key, without the private half.

    Attributes:
        until_s: the second after which nothing that it signed can be alive; None for the active one.
    """

    kid: str
    created_s: int
    state: Literal["active", "retiring", "retired"]
    until_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    key: SigningKey
    retired_s: int | None
    longest_s: int

    @property
    def until_s(self) -> int | None:
        return None if self.retired_s is None else max(self.retired_s + _TAIL_S, self.longest_s + LEEWAY_S)


class KeyRing:
    """The keys of one directory. `refresh` picks up what another process did there."""

    def __init__(
        self, directory: Path, stored: tuple[_Stored, ...], log_key: ed25519.Ed25519PrivateKey
    ) -> None:
        self._directory = directory
        self._stored = stored
        self._seen = _fingerprint(directory)
        self.log_key = log_key

    @classmethod
    def open(cls, directory: Path, *, now_s: int) -> "KeyRing":
        """Open the directory; make it, and the first keys, where there are none.

        What must hold:

        1. The directory is the owner's alone.
        2. The log's key is made before any other. One that is missing later was deleted, and a new one in
           its place would turn every checkpoint so far into one of a stranger.
        3. There is an active key, and every file is whole, the owner's alone, and what its name says.

        Raises:
            KeysUnsafe: somebody else may read or write it, it is a link, or a file in it is damaged.
        """
        try:
            # 1. Private.
            missing = [each for each in (directory, *directory.parents) if not each.exists()]
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in missing:
                _sync(each.parent)
            _require_private(directory)
            with _locked(directory):
                # 2. The log's key.
                if not (directory / _LOG_KEY).exists():
                    if any(directory.glob("*.json")):
                        raise KeysUnsafe(f"{directory / _LOG_KEY} is missing; put it back from a copy")
                    _write(directory / _LOG_KEY, _pem(ed25519.Ed25519PrivateKey.generate()))
                log_key = _load_ed25519(directory / _LOG_KEY)
                # 3. The signing keys.
                stored = _load(directory)
                if not any(each.retired_s is None for each in stored):
                    _create(directory, now_s)
                    stored = _load(directory)
                return cls(directory, stored, log_key)
        except OSError as error:
            raise KeysUnsafe(f"cannot use the key directory {directory}: {error.strerror}") from error

    def witness_key(self) -> ed25519.Ed25519PrivateKey:
        """The key of this broker as a witness, made where there is none. Raises KeysUnsafe."""
        path = self._directory / _WITNESS_KEY
        try:
            with _locked(self._directory):
                if not path.exists():
                    _write(path, _pem(ed25519.Ed25519PrivateKey.generate()))
                return _load_ed25519(path)
        except OSError as error:
            raise KeysUnsafe(f"cannot use {path}: {error.strerror}") from error

    @property
    def active(self) -> SigningKey:
        """The key that signs now."""
        return max(
            (each for each in self._stored if each.retired_s is None),
            key=lambda each: (each.key.created_s, each.key.kid),
        ).key

    def keys(self, *, now_s: int) -> tuple[KeyInfo, ...]:
        """Every key that was not deleted, the newest first."""
        active = self.active.kid
        return tuple(
            KeyInfo(
                kid=each.key.kid,
                created_s=each.key.created_s,
                state="active" if each.key.kid == active else _state(each, now_s),
                until_s=each.until_s,
            )
            for each in sorted(
                self._stored, key=lambda each: (each.key.kid != active, -each.key.created_s, each.key.kid)
            )
        )

    def key_set(self, *, now_s: int) -> KeySet:
        """The public keys of which something may still be alive."""
        return _key_set(self._stored, now_s)

    def public_jwks(self, *, now_s: int) -> dict[str, Json]:
        """The same as a JWK Set (RFC 7517 §5): public members only, written out one by one."""
        return {
            "keys": [
                {**_jwk(key.key), "kid": key.kid, "alg": "ES256", "use": "sig"}
                for key in self.key_set(now_s=now_s).keys
                if isinstance(key.key, ec.EllipticCurvePublicKey)
            ]
        }

    def rotate(self, *, now_s: int) -> SigningKey:
        """Make a new key and retire the active one.

        1. The new key first: whatever goes wrong after this, there is a key to sign with.
        2. Then the others are retired. Two active ones, after a crash, do no harm: the newer one signs.
        3. What nobody has needed for a long time goes, and so do halves of files that a crash left.

        Raises:
            KeysUnsafe: it could not be written.
        """
        try:
            with _locked(self._directory):
                # 1. A new one.
                before = _load(self._directory)
                new = _create(self._directory, now_s)
                # 2. Instead of the old.
                for each in before:
                    if each.retired_s is None:
                        _describe(self._directory, each.key.kid, each.key.created_s, now_s, each.longest_s)
                # 3. Bury the dead.
                for each in before:
                    if each.until_s is not None and each.until_s + _BURIED_S <= now_s:
                        (self._directory / f"{each.key.kid}.json").unlink()
                        (self._directory / f"{each.key.kid}.pem").unlink()
                for half in self._directory.glob("*.new"):
                    half.unlink()
                self._stored = _load(self._directory)
        except OSError as error:
            raise KeysUnsafe(f"cannot write to {self._directory}: {error.strerror}") from error
        return next(each.key for each in self._stored if each.key.kid == new)

    def signed_until(self, kid: str, exp_s: int) -> None:
        """Remember that the key signed something that lives longer than a call token.

        Raises:
            KeysUnsafe: it could not be written; then do not hand out what was signed.
        """
        try:
            with _locked(self._directory):
                found = next((each for each in _load(self._directory) if each.key.kid == kid), None)
                if found is None:
                    raise KeysUnsafe(f"{self._directory} has no key {kid} any more; try again")
                if found.longest_s < exp_s:
                    _describe(self._directory, kid, found.key.created_s, found.retired_s, exp_s)
                self._stored = _load(self._directory)
        except OSError as error:
            raise KeysUnsafe(f"cannot write to {self._directory}: {error.strerror}") from error

    def refresh(self) -> bool:
        """Load again if anything changed; whether it did.

        Takes no lock, so that it never waits. A directory that cannot be used leaves the keys in use, and
        says so in the operator's log; it is looked at again when it changes.
        """
        seen = _fingerprint(self._directory)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            stored = _load(self._directory)
        except (KeysUnsafe, OSError) as error:
            why = error.message if isinstance(error, KeysUnsafe) else error.strerror
            _log.warning("keeping the keys in use: %s cannot be used: %s", self._directory, why)
            return False
        if not any(each.retired_s is None for each in stored):
            _log.warning("keeping the keys in use: %s has no active one", self._directory)
            return False
        self._stored = stored
        return True


@dataclass(frozen=True, slots=True)
class KeysAsTheyLie:
    """The public keys of a directory, for a command that must not make any: there may be none."""

    directory: Path

    def key_set(self, *, now_s: int) -> KeySet:
        """Those of which something may still be alive. Raises KeysUnsafe."""
        try:
            if not self.directory.exists():
                return KeySet(())
            _require_private(self.directory)
            return _key_set(_load(self.directory), now_s)
        except OSError as error:
            raise KeysUnsafe(f"cannot use the key directory {self.directory}: {error.strerror}") from error


def _key_set(stored: tuple[_Stored, ...], now_s: int) -> KeySet:
    return KeySet(
        tuple(
            PublicKey(kid=each.key.kid, alg="ES256", key=each.key.private_key.public_key())
            for each in stored
            if each.until_s is None or now_s < each.until_s
        )
    )


def _state(stored: _Stored, now_s: int) -> Literal["active", "retiring", "retired"]:
    return "retired" if stored.until_s is not None and now_s >= stored.until_s else "retiring"


def _fingerprint(directory: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a key is made, retired, deleted or mended; `ctime`, because chmod mends too."""
    try:
        with os.scandir(directory) as entries:
            found = [(each.name, each.stat()) for each in entries if each.name.endswith((".json", ".pem"))]
    except OSError:
        return ()
    return tuple(sorted((name, about.st_ctime_ns, about.st_ino) for name, about in found))


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """One process at a time: two that start at once must not make two sets of keys."""
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_S
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() >= deadline:
                raise KeysUnsafe(
                    f"another process has held {directory / _LOCK} for {LOCK_S:g} s; is it stopped?"
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _require_private(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise KeysUnsafe(f"{path} is a link; the keys must lie where they seem to lie")
    if found.st_uid != os.geteuid():
        raise KeysUnsafe(
            f"{path} belongs to user {found.st_uid}: run this as that user, or `chown {os.geteuid()} {path}`"
        )
    if found.st_mode & 0o077:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise KeysUnsafe(f"others may use {path}; run `chmod {mode} {path}`, and rotate if they did")


def _create(directory: Path, now_s: int) -> str:
    private_key = ec.generate_private_key(ec.SECP256R1())
    kid = digest(canonical_json(_jwk(private_key.public_key())))  # RFC 7638 §3
    _write(directory / f"{kid}.pem", _pem(private_key))
    _describe(directory, kid, now_s, None, 0)
    return kid


def _jwk(key: ec.EllipticCurvePublicKey) -> dict[str, Json]:
    numbers = key.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": encode_part(numbers.x.to_bytes(32)),
        "y": encode_part(numbers.y.to_bytes(32)),
    }


def _pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _describe(directory: Path, kid: str, created_s: int, retired_s: int | None, longest_s: int) -> None:
    about = {"created": created_s, "retired": retired_s, "signed_until": longest_s}
    _write(directory / f"{kid}.json", json.dumps(about).encode())


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all: a half-written key would be a broker that cannot start."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    # A name in a directory survives a power cut only if the directory was synced too.
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(directory: Path) -> tuple[_Stored, ...]:
    return tuple(_load_one(path) for path in sorted(directory.glob("*.json")))


def _load_one(path: Path) -> _Stored:
    key_path = path.with_suffix(".pem")
    _require_private(path)
    _require_private(key_path)
    private_key = _read_key(key_path)
    if not (
        isinstance(private_key, ec.EllipticCurvePrivateKey) and isinstance(private_key.curve, ec.SECP256R1)
    ):
        raise KeysUnsafe(f"{key_path} is not an ES256 key")
    if digest(canonical_json(_jwk(private_key.public_key()))) != path.stem:
        raise KeysUnsafe(f"{key_path} is not the key that its name says")
    try:
        about = cast("dict[str, Any]", json.loads(path.read_bytes()))
        created, retired, longest = about["created"], about["retired"], about["signed_until"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeysUnsafe(f"{path} is damaged") from error
    # A date that was lost would publish a key for ever, or take a living one away.
    if not (type(created) is int and type(longest) is int and (retired is None or type(retired) is int)):
        raise KeysUnsafe(f"{path} is damaged")
    key = SigningKey(kid=path.stem, private_key=private_key, created_s=created)
    return _Stored(key=key, retired_s=retired, longest_s=longest)


def _load_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    _require_private(path)
    key = _read_key(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeysUnsafe(f"{path} is not an Ed25519 key")
    return key


def _read_key(path: Path) -> object:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysUnsafe(f"{path} is damaged, or needs a password") from error


def log_public_key(directory: Path) -> ed25519.Ed25519PublicKey:
    """The public half of the log's key, for a reviewer; nothing is made. Raises KeysUnsafe."""
    return log_private_key(directory).public_key()


def log_private_key(directory: Path) -> ed25519.Ed25519PrivateKey:
    """The log's key, for a command that signs a checkpoint; nothing is made.

    Raises:
        KeysUnsafe: there is none here, or the file is damaged.
    """
    try:
        return _load_ed25519(directory / _LOG_KEY)
    except OSError as error:
        raise KeysUnsafe(
            f"cannot read the log's key in {directory}: {error.strerror}; give it with --key"
        ) from error
