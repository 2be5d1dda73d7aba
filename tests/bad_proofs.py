"""The proofs of tests/hostile/proofs: each is a good one, but for one thing."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from foreign_issuer import part
from proof_client import ProofKey

HTM, ORIGIN, PATH = "POST", "http://127.0.0.1:8700", "/mcp"
"""The request that the good proof is for."""

_DIRECTORY = Path(__file__).parent / "hostile" / "proofs"
_MEMBERS = {"code", "reason", "check", "broker", "header", "jwk", "claims", "without", "twice"} | {
    "iat", "long", "signed", "shown", "raw", "before",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BadProof:
    """One file. `code` and `reason` are the refusal; `broker`: the kit has no such check."""

    name: str
    code: str
    reason: str
    check: int
    broker: bool
    how: Mapping[str, Any]

    def shown(
        self, key: ProofKey, *, now_s: int, token: str, nonce: str, jti: str = "of-a-test"
    ) -> list[str]:
        """The values of the `DPoP` headers. The good proof is one for this token, with this nonce."""
        return proof_like(self.how, key, now_s=now_s, token=token, nonce=nonce, jti=jti)


def bad_proofs() -> list[BadProof]:
    """Every file, by name."""
    return [_read(path) for path in sorted(_DIRECTORY.glob("*.json"))]


def _read(path: Path) -> BadProof:
    how = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    assert how.keys() <= _MEMBERS, path
    return BadProof(
        name=path.stem,
        code=how["code"],
        reason=how["reason"],
        check=how["check"],
        broker=how.get("broker", False),
        how=how,
    )


def proof_like(
    how: Mapping[str, Any], key: ProofKey, *, now_s: int, token: str, nonce: str, jti: str
) -> list[str]:
    """A good proof, but for what `how` says; see tests/hostile/proofs/README.md."""
    parts: dict[str, dict[str, Any]] = {
        "jwk": {**key.jwk, **how.get("jwk", {})},
        "claims": {
            "jti": jti,
            "htm": HTM,
            "htu": ORIGIN + PATH,
            "iat": now_s + how.get("iat", 0),
            "ath": part(sha256(token.encode()).digest()),
            "nonce": nonce,
            **how.get("claims", {}),
        },
    }
    signer = ProofKey() if how.get("signed") in {"by-another", "with-another"} else key
    if how.get("signed") == "with-another":
        parts["jwk"] = dict(signer.jwk)
    if "long" in how:
        parts["claims"]["long"] = "x" * how["long"]
    parts["header"] = {"typ": "dpop+jwt", "alg": "ES256", "jwk": parts["jwk"], **how.get("header", {})}
    for name in how.get("without", ()):
        where, _, member = name.partition(".")
        del parts[where][member]
    header, claims = (part(_text(parts[where], where, how).encode()) for where in ("header", "claims"))
    signature = _signature(how.get("signed"), signer, f"{header}.{claims}")
    shown: list[str] = how.get("shown", ["{header}.{claims}.{signature}"])
    return [each.format(header=header, claims=claims, signature=signature) for each in shown]


def _text(members: Mapping[str, Any], where: str, how: Mapping[str, Any]) -> str:
    if where in how.get("raw", {}):
        return str(how["raw"][where])
    text: str = how.get("before", {}).get(where, "") + json.dumps(members)
    twice: str = how.get("twice", "")
    holder, _, member = twice.partition(".")
    if holder == where:
        return f"{text[:-1]}, {json.dumps(member)}: {json.dumps(members[member])}}}"
    if holder == "jwk" and where == "header":
        jwk = json.dumps(members["jwk"])
        value = json.dumps(members["jwk"][member])
        return text.replace(jwk, f"{jwk[:-1]}, {json.dumps(member)}: {value}}}")
    return text


def _signature(signed: str | None, signer: ProofKey, signing_input: str) -> str:
    match signed:
        case "not-at-all":
            return ""
        case "with-zeros":
            return part(bytes(64))
        case "by-hmac":
            # With what everybody can read: the public key, as a secret.
            secret = json.dumps(signer.jwk).encode()
            return part(hmac.digest(secret, signing_input.encode(), "sha256"))
        case "in-der":
            raw = signer.signature(signing_input)
            return part(encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:])))
        case "with-spare-bits":
            good = part(signer.signature(signing_input))
            # The last of 86 characters carries two bits of the 64 bytes, and four that mean nothing.
            return good[:-1] + chr(ord(good[-1]) + 1)
        case _:
            return part(signer.signature(signing_input))
