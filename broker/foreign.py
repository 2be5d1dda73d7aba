"""A credential of another issuer: whose it claims to be, and whether that one signed it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from broker.canonical import Json, digest
from broker.catalog import Catalog, Issuer
from broker.discovery import discovery_url, fetch_discovered
from broker.errors import Code, Rejected, Usage
from broker.fetch import fetch_url
from broker.issuers import ID_JAG_TYP, claimed_issuer, why_nobody
from broker.jwks import FileKeys, KeySource, UrlKeys
from broker.jws import UnverifiedJws
from broker.session_claims import SESSION_TYP
from broker.spiffe import KEY_USE
from broker.verify import ALGORITHMS, SIGNING_USES, Algorithm, verify_parsed


class KeySources(Protocol):
    """Has a source of keys for each issuer."""

    def __call__(self, issuer: Issuer) -> KeySource:
        """The same source each time, so that what it has fetched is kept."""
        ...


class IssuerKeys:
    """Key sources, kept over a reload of the catalog for those issuers whose keys stay where they were.

    One for each declared issuer, however many there are: were they made to give way to each other, whoever
    names one issuer after another would have keys fetched for each message, and nobody's old keys would last.
    """

    def __init__(self) -> None:
        self._sources: dict[tuple[object, ...], KeySource] = {}

    def __call__(self, issuer: Issuer) -> KeySource:
        """The source of its keys. Raises Usage where its URL cannot be used."""
        key = _place(issuer)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _source(issuer)
        return source

    def retain(self, issuers: Iterable[Issuer]) -> None:
        """Forget the keys of all others: a new catalog has no use for them."""
        places = {_place(issuer) for issuer in issuers}
        self._sources = {key: source for key, source in self._sources.items() if key in places}


def _place(issuer: Issuer) -> tuple[object, ...]:
    where = issuer.issuer if issuer.jwks is None else None
    return (issuer.jwks, where, issuer.ca_file, issuer.algorithms, issuer.kind == "spiffe")


def _source(issuer: Issuer) -> KeySource:
    allowed = _algorithms(issuer)
    uses = frozenset({KEY_USE}) if issuer.kind == "spiffe" else SIGNING_USES
    fetch = partial(fetch_url, ca_file=issuer.ca_file)
    if issuer.jwks is None:
        discovered = partial(fetch_discovered, issuer=issuer.issuer, fetch=fetch)
        url = discovery_url(issuer.issuer)
        return UrlKeys(url, algorithms=allowed, family="credential", uses=uses, fetch=discovered)
    if issuer.jwks.startswith(("https:", "http:")):
        return UrlKeys(issuer.jwks, algorithms=allowed, family="credential", uses=uses, fetch=fetch)
    return FileKeys(Path(issuer.jwks), algorithms=allowed, family="credential", uses=uses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What a declared issuer has signed. What it claims has still to be judged.

    Attributes:
        sid: id of the session that it opens: the same each time, and says nothing about the credential.
    """

    issuer: Issuer
    payload: Mapping[str, Json]
    sid: str


async def vouched(
    jws: UnverifiedJws, claimed: Mapping[str, Json], *, catalog: Catalog, keys: KeySources
) -> Vouched:
    """Verify that a declared issuer signed this credential.

    Args:
        claimed: its payload, parsed and not verified.

    What must hold:

    1. It says that it is of an issuer that the catalog declares: else no key is fetched.
    2. That issuer's keys can be had.
    3. One of them signed it, as the kind of token that this issuer's are.

    Raises:
        Rejected: `credential.…`.
    """
    # 1. An issuer that we know.
    typ = (jws.typ or "").lower().removeprefix("application/")
    issuer = claimed_issuer(catalog, claimed, grant=typ == ID_JAG_TYP)
    if issuer is None:
        raise Rejected(Code.CREDENTIAL_ISSUER, why_nobody(catalog, claimed))
    # 2. Its keys.
    try:
        source = keys(issuer)
    except Usage as error:
        # One issuer whose URL cannot be used is no reason to fail the others.
        raise Rejected(Code.CREDENTIAL_KEYS_UNAVAILABLE, error.message) from error
    # 3. Signed by it.
    verified = verify_parsed(
        jws,
        await source.keys_for(jws.kid),
        # The broker's own type is never another issuer's, whatever the catalog says.
        types=tuple(each for each in issuer.types if each != SESSION_TYP),
        algorithms=_algorithms(issuer),
        family="credential",
    )
    return Vouched(issuer=issuer, payload=verified.payload, sid=_sid(jws))


def _algorithms(issuer: Issuer) -> tuple[Algorithm, ...]:
    return tuple(sorted(set(ALGORITHMS) & set(issuer.algorithms)))


def _sid(jws: UnverifiedJws) -> str:
    # Not of the signature: whoever holds an ECDSA signature (r, s) can write (r, n - s), which holds as
    # well. With it in the digest, one revoked credential would be two sessions.
    # No dash in front: `broker session revoke` would take the id for an option.
    return digest(b"session\0" + jws.signing_input).lstrip("-")[:22]
