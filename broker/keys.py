"""The signing keys: made on first start, rotated, published; and the log's own key.

A directory of the owner's alone, one file a key:

    KID.pem     an ES256 private key; KID is its RFC 7638 thumbprint
    KID.json    when it was made, when it was retired, and until when something that it signed may live
    log.pem     the Ed25519 key that signs checkpoints, and nothing else
"""

import fcntl
import json
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

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
_LOCK = ".lock"
_TAIL_S = MAX_TTL_S + 2 * LEEWAY_S
"""After it was retired, a key is published for as long as a call token of its may be taken."""


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

        Raises:
            KeysUnsafe: somebody else may read or write it, it is a link, or a file in it is damaged.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(directory)
            with _locked(directory):
                if not any(directory.glob("*.json")):
                    _create(directory, now_s)
                if not (directory / _LOG_KEY).exists():
                    _write(directory / _LOG_KEY, _pem(ed25519.Ed25519PrivateKey.generate()))
                return cls(directory, _load(directory), _load_log_key(directory))
        except OSError as error:
            raise KeysUnsafe(f"cannot use the key directory {directory}: {error.strerror}") from error

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
            for each in sorted(self._stored, key=lambda each: -each.key.created_s)
        )

    def key_set(self, *, now_s: int) -> KeySet:
        """The public keys of which something may still be alive."""
        return KeySet(
            tuple(
                PublicKey(kid=each.key.kid, alg="ES256", key=each.key.private_key.public_key())
                for each in self._stored
                if each.until_s is None or now_s < each.until_s
            )
        )

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
        """Make a new key and retire the active one. Raises KeysUnsafe."""
        try:
            with _locked(self._directory):
                for each in _load(self._directory):
                    if each.retired_s is None:
                        _describe(self._directory, each.key.kid, each.key.created_s, now_s, each.longest_s)
                _create(self._directory, now_s)
                self._stored = _load(self._directory)
        except OSError as error:
            raise KeysUnsafe(f"cannot write to {self._directory}: {error.strerror}") from error
        return self.active

    def signed_until(self, kid: str, exp_s: int) -> None:
        """Remember that the key signed something that lives longer than a call token.

        Raises:
            KeysUnsafe: it could not be written; then do not hand out what was signed.
        """
        try:
            with _locked(self._directory):
                for each in _load(self._directory):
                    if each.key.kid == kid and each.longest_s < exp_s:
                        _describe(self._directory, kid, each.key.created_s, each.retired_s, exp_s)
                self._stored = _load(self._directory)
        except OSError as error:
            raise KeysUnsafe(f"cannot write to {self._directory}: {error.strerror}") from error

    def refresh(self) -> bool:
        """Load again if anything changed; whether it did. A damaged directory keeps the keys in use."""
        seen = _fingerprint(self._directory)
        if seen == self._seen:
            return False
        with suppress(KeysUnsafe, OSError):
            with _locked(self._directory):
                self._stored = _load(self._directory)
            self._seen = seen
            return True
        return False


def _state(stored: _Stored, now_s: int) -> Literal["active", "retiring", "retired"]:
    return "retired" if stored.until_s is not None and now_s >= stored.until_s else "retiring"


def _fingerprint(directory: Path) -> tuple[tuple[str, int, int], ...]:
    with suppress(OSError):
        return tuple(
            sorted(
                (each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in directory.glob("*.json")
            )
        )
    return ()


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """One process at a time: two that start at once must not make two sets of keys."""
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_private(path: Path) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise KeysUnsafe(f"{path} is a link; the keys must lie where they seem to lie")
    if found.st_uid != os.geteuid():
        raise KeysUnsafe(f"{path} belongs to another user; run `chown {os.geteuid()} {path}`")
    if found.st_mode & 0o077:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise KeysUnsafe(f"others may use {path}; run `chmod {mode} {path}`, and rotate if they did")


def _create(directory: Path, now_s: int) -> None:
    private_key = ec.generate_private_key(ec.SECP256R1())
    kid = digest(canonical_json(_jwk(private_key.public_key())))  # RFC 7638 §3
    _write(directory / f"{kid}.pem", _pem(private_key))
    _describe(directory, kid, now_s, None, 0)


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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(directory: Path) -> tuple[_Stored, ...]:
    stored: list[_Stored] = []
    for path in sorted(directory.glob("*.json")):
        key_path = path.with_suffix(".pem")
        _require_private(path)
        _require_private(key_path)
        private_key = _read_key(key_path)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise KeysUnsafe(f"{key_path} is not an ES256 key")
        if digest(canonical_json(_jwk(private_key.public_key()))) != path.stem:
            raise KeysUnsafe(f"{key_path} is not the key that its name says")
        try:
            about = cast("dict[str, Any]", json.loads(path.read_bytes()))
            created, retired, longest = about["created"], about["retired"], about["signed_until"]
        except (ValueError, KeyError, TypeError) as error:
            raise KeysUnsafe(f"{path} is damaged") from error
        key = SigningKey(kid=path.stem, private_key=private_key, created_s=int(created))
        stored.append(
            _Stored(key=key, retired_s=None if retired is None else int(retired), longest_s=int(longest))
        )
    if not any(each.retired_s is None for each in stored):
        raise KeysUnsafe(f"{directory} has no active key; run `broker keys rotate`")
    return tuple(stored)


def _load_log_key(directory: Path) -> ed25519.Ed25519PrivateKey:
    path = directory / _LOG_KEY
    _require_private(path)
    key = _read_key(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeysUnsafe(f"{path} is not an Ed25519 key")
    return key


def _read_key(path: Path) -> object:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise KeysUnsafe(f"{path} is damaged") from error


def log_public_key(directory: Path) -> ed25519.Ed25519PublicKey:
    """The public half of the log's key, for a reviewer; nothing is made.

    Raises:
        KeysUnsafe: there is none here, or the file is damaged.
    """
    try:
        return _load_log_key(directory).public_key()
    except OSError as error:
        raise KeysUnsafe(
            f"cannot read the log's key in {directory}: {error.strerror}; give it with --key"
        ) from error
