"""`broker session open`: apart from its siblings, which need neither the catalog nor the keys."""

import argparse
import re
import secrets
import shlex
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import anyio

from broker.assurance import ASSURANCE
from broker.catalog import Catalog
from broker.chain import Chain, Principal, principal_name
from broker.cli.private_file import private_file
from broker.cli.session import now_ms, shown
from broker.dpop import thumbprint
from broker.errors import Code, Rejected, Usage
from broker.jws import parse_json_strict
from broker.keys import KeyRing
from broker.places import log_origin
from broker.session import Assertion, Session, opened_record
from broker.session_claims import is_thumbprint
from broker.session_signer import SessionSigner
from broker.store.protocols import Unmet
from broker.store.refusals import rejection
from broker.store.sqlite import Store
from broker.tools_toml import load
from broker.verify import key_from_jwk

MIN_FOR_S = 60
MAX_FOR_S = 30 * 24 * 3600
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What `open` was asked for, checked."""

    subject: str
    agent: str | None
    roles: tuple[str, ...]
    seconds: int
    acr: str | None
    tenant: str | None
    auth_time: int | None
    jkt: str | None


def run(arguments: argparse.Namespace) -> int:
    """Open a session and print its credential, once.

    The credential is all that goes to stdout. It is kept nowhere: whoever loses it opens another session.
    """
    catalog = load(arguments.config)
    wish = _wish(arguments, catalog)
    if arguments.to is None:
        session, credential = anyio.run(_open_session, catalog, wish)
        print(credential, flush=True)
    else:
        # The file first: where it cannot be written there shall be no session that nobody can use.
        with private_file(arguments.to) as file:
            session, credential = anyio.run(_open_session, catalog, wish)
            file.write(credential + "\n")
    roles = ", ".join(session.roles) or "nobody who may call a tool"
    until = shown(session.expires_s * 1000)
    print(f"opened session {session.sid}: {session.chain}, as {roles}, until {until}", file=sys.stderr)
    config = (
        "" if arguments.config == Path("tools.toml") else f" --config {shlex.quote(str(arguments.config))}"
    )
    if session.jkt is not None:
        print(f"bound to the key {session.jkt}: it is refused without a proof of that", file=sys.stderr)
    print(f"end it with: broker session revoke {session.sid}{config}", file=sys.stderr)
    return 0


def _wish(arguments: argparse.Namespace, catalog: Catalog) -> _Wish:
    tenant: str | None = arguments.tenant
    if tenant is not None:
        _require_known(catalog, tenant, list(catalog.tenants), "tenant")
    roles = tuple(dict.fromkeys(arguments.roles or ()))
    for role in roles:
        _require_known(catalog, role, list(catalog.roles), "role")
        owner = catalog.roles[role].tenant
        if owner not in {None, tenant}:
            raise Usage(f"{role!r} is a role of tenant {owner!r}: it grants nothing to this session")
    subject = principal_name(arguments.subject, "--subject", Code.USAGE)
    agent: str | None = None
    if arguments.agent is not None:
        agent = principal_name(arguments.agent, "--agent", Code.USAGE)
    if arguments.acr not in (None, *ASSURANCE):
        # It would be kept, and never be enough for any tool.
        raise Usage(f"--acr is one of {', '.join(ASSURANCE)}, from weak to strong")
    return _Wish(
        subject=subject,
        agent=None if agent == subject else agent,
        roles=roles,
        seconds=_seconds(arguments.lifetime),
        acr=arguments.acr,
        tenant=tenant,
        auth_time=now_ms() // 1000 if arguments.auth_time == "now" else None,
        jkt=None if arguments.bind is None else _thumbprint(arguments.bind),
    )


def _require_known(catalog: Catalog, name: str, known: list[str], what: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        all_of_them = ", ".join(sorted(known)) or "none"
        hint = f"did you mean `{near[0]}`?" if near else f"the {what}s are: {all_of_them}"
        raise Usage(f"{catalog.source} has no {what} {name!r}; {hint}")


def _thumbprint(text: str) -> str:
    """Of a key that is named by it, or that lies in a file (RFC 7638)."""
    path = Path(text)
    if not path.exists():
        if is_thumbprint(text):
            return text
        raise Usage(f"--bind {text!r}: neither the thumbprint of a key (43 characters) nor a file with a JWK")
    try:
        jwk = parse_json_strict(path.read_bytes(), Code.USAGE)
        if not isinstance(jwk, dict):
            raise Usage(f"--bind {text}: that file holds no JWK")
        return thumbprint(key_from_jwk(jwk, invalid=Code.USAGE).key)
    except Rejected as rejected:
        raise Usage(f"--bind {text}: {rejected.message}") from None
    except OSError as error:
        raise Usage(f"--bind {text}: cannot be read: {error.strerror}") from error


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,8})([smhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not MIN_FOR_S <= seconds <= MAX_FOR_S:
        raise Usage(f"--for {text!r}: write a time from 60s to 30d, such as 30m, 8h or 7d")
    return seconds


async def _open_session(catalog: Catalog, wish: _Wish) -> tuple[Session, str]:
    """A session, and its credential.

    1. The session is kept, and its record is durable.
    2. Only then is there a credential, by a key that is published as long as it lives.
    """
    opened_ms = now_ms()
    issuer = catalog.broker.issuer
    agent = () if wish.agent is None else (Principal(issuer, wish.agent),)
    session = Session(
        # As long as the ids of other sessions, and without a dash in front, as they are.
        sid=secrets.token_urlsafe(32).lstrip("-")[:22],
        kind="broker",
        issuer="broker",
        chain=Chain(Principal(issuer, wish.subject), agent),
        roles=wish.roles,
        assertions=tuple(
            Assertion(role=role, because="given by `broker session open`") for role in wish.roles
        ),
        opened_ms=opened_ms,
        expires_s=opened_ms // 1000 + wish.seconds,
        acr=wish.acr,
        tenant=wish.tenant,
        auth_time=wish.auth_time,
        jkt=wish.jkt,
    )
    keys = KeyRing.open(Path(catalog.broker.keys), now_s=opened_ms // 1000)
    # 1. Kept.
    async with Store.open(Path(catalog.broker.store), origin=log_origin(issuer), now_ms=now_ms) as store:
        kept = await store.open_session(session, opened_record(session, catalog=catalog.digest))
    if isinstance(kept, Unmet):
        refusal = rejection(kept)
        if kept is Unmet.PRINCIPAL_REVOKED:
            raise Rejected(refusal.code, f"{refusal.message}; see `broker revoke list`")
        raise refusal
    # 2. Signed.
    return session, await SessionSigner(keys=keys)(session, iss=issuer)
