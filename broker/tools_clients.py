"""`[clients.NAME]` of a tools.toml → a value of the catalog: an OAuth client, and how it proves who it is."""

import re
from pathlib import Path

from broker.canonical import digest
from broker.catalog import Client, Impersonation
from broker.errors import Code, Rejected
from broker.jws import decode_part
from broker.toml_lines import KeyPath
from broker.tools_grammar import ClientSection
from broker.tools_parts import Parts
from broker.verify import ALGORITHMS

_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")


class ClientValues(Parts):
    """The sections of who may ask at the OAuth endpoints."""

    def client(self, at: KeyPath, model: ClientSection) -> Client:
        if not self._mistakes.silent((*at, "auth")):
            self._require_method(at, model)
        if model.backend is not None:
            self._across.require_known((*at, "backend"), model.backend, "backends", "backend")
        impersonate: list[Impersonation] = []
        for position, each in enumerate(model.impersonate):
            where = (*at, "impersonate", position)
            if each.issuer != "broker":
                self._across.require_known((*where, "issuer"), each.issuer, "issuers", "issuer")
            rule = f"clients.{at[-1]}.impersonate[{position}]"
            impersonate.append(Impersonation(rule=rule, issuer=each.issuer, sub=each.sub))
        if model.transaction_tokens:
            self._across.require_trust_domain((*at, "transaction_tokens"))
        jwks = model.jwks
        if jwks is not None and not jwks.startswith(("http://", "https://")):
            jwks = self._path(jwks)
        return Client(
            name=str(at[-1]),
            auth=model.auth,
            secret_sha256=model.secret_sha256,
            jwks=jwks,
            algorithms=tuple(model.algorithms),
            backend=model.backend,
            impersonate=tuple(impersonate),
            transaction_tokens=model.transaction_tokens,
        )

    def _require_method(self, at: KeyPath, model: ClientSection) -> None:
        """What its way to authenticate needs, and nothing of another: a client has one."""
        if model.auth == "client_secret_basic":
            self._require_secret((*at, "secret_sha256"), model.secret_sha256)
            for key in ("jwks", "algorithms"):
                if key in model.model_fields_set:
                    self._mistakes.note((*at, key), 'is for `auth = "private_key_jwt"`')
            return
        if "secret_sha256" in model.model_fields_set:
            self._mistakes.note((*at, "secret_sha256"), 'is for `auth = "client_secret_basic"`')
        self._require_keys(at, model)

    def _require_keys(self, at: KeyPath, model: ClientSection) -> None:
        if model.jwks is None:
            self._mistakes.note((*at, "jwks"), "is required: the client's public keys")
        elif model.jwks.startswith(("http://", "https://")):
            self._url((*at, "jwks"), model.jwks, path=True)
        elif not Path(self._path(model.jwks)).is_file():
            self._mistakes.note((*at, "jwks"), f"there is no file {model.jwks!r}, and it is no http(s) URL")
        for position, name in enumerate(model.algorithms):
            if name not in ALGORITHMS:
                problem = f"{name!r} is not taken; known are {', '.join(ALGORITHMS)}"
                self._mistakes.note((*at, "algorithms", position), problem, (name, ALGORITHMS))
        if not model.algorithms:
            self._mistakes.note((*at, "algorithms"), "must name at least one")

    def _require_secret(self, at: KeyPath, secret_sha256: str | None) -> None:
        if secret_sha256 is None:
            self._mistakes.note(at, "is required: `broker keys secret` makes a secret and prints this line")
            return
        try:
            good = bool(_DIGEST.fullmatch(secret_sha256)) and bool(decode_part(secret_sha256, Code.USAGE))
        except Rejected:
            good = False
        if not good:
            # A secret in its place would be one that whoever reads the file has.
            self._mistakes.note(at, "is no SHA-256 in base64url; `broker keys secret` prints this line")
        elif secret_sha256 == digest(b""):
            self._mistakes.note(at, "is the digest of an empty secret")
