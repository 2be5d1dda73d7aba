"""`[issuers.NAME]` and `[tenants.NAME]` of a tools.toml → values of the catalog: what each kind asks for."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker import spiffe
from broker.catalog import Issuer, IssuerKind, RoleRule, Tenant
from broker.issuers import ID_JAG_TYP
from broker.session_claims import SESSION_TYP
from broker.toml_lines import KeyPath
from broker.tools_assurance import acr_table
from broker.tools_grammar import IssuerSection, RoleRuleSection, TenantSection
from broker.tools_parts import Parts
from broker.verify import ALGORITHMS

MAX_SESSION_S = 24 * 3600
"""Of a session that an assertion opened: it was shown once, and nobody vouches for it again."""

_FOREIGN_TYPES: Mapping[str, str] = {
    SESSION_TYP: "is the type of the broker's own credentials",
    ID_JAG_TYP: 'is for `kind = "id-jag"`: it opens no session by itself',
    **dict.fromkeys(
        ("dpop+jwt", "txntoken+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "wpt+jwt"),
        "is another kind of token, which says nothing about who shows it (RFC 8725 §3.11)",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a kind of issuer takes.

    Attributes:
        required, unwanted: keys that it must have, and those that mean nothing there.
    """

    required: tuple[str, ...]
    unwanted: tuple[str, ...]
    algorithms: tuple[str, ...] = ALGORITHMS
    types: tuple[str, ...] | None = None


_KINDS: Mapping[IssuerKind, _Kind] = {
    "jwt": _Kind(required=("issuer", "audience", "jwks"), unwanted=("trust_domain",)),
    "oidc": _Kind(required=("issuer", "audience"), unwanted=("trust_domain",)),
    "kubernetes": _Kind(required=("issuer", "audience"), unwanted=("trust_domain",), types=("", "jwt")),
    "spiffe": _Kind(
        required=("trust_domain", "audience", "jwks"),
        unwanted=("issuer", "types"),
        algorithms=spiffe.ALGORITHMS,
        types=spiffe.TYPES,
    ),
    "id-jag": _Kind(
        required=("issuer",),
        unwanted=("trust_domain", "audience", "types", "once"),
        types=(ID_JAG_TYP,),
    ),
}
_WHY_UNWANTED: Mapping[str, str] = {
    "issuer": "is not asked of it: its names are those of `trust_domain`, and many SVIDs have no `iss`",
    "audience": "is the issuer of the broker, always",
    "once": "is so for every identity assertion",
    "types": "is fixed by the standard",
    "trust_domain": 'is for `kind = "spiffe"`',
}


class IssuerValues(Parts):
    """The sections of whom the broker believes."""

    def tenant(self, at: KeyPath, model: TenantSection) -> Tenant:
        return Tenant(name=str(at[-1]), title=model.title)

    def issuer(self, at: KeyPath, model: IssuerSection) -> Issuer:
        kind = _KINDS[model.kind]
        self._require_keys(at, model, kind)
        if model.kind in {"oidc", "kubernetes"} and model.jwks is None and model.issuer is not None:
            # Discovery begins there.
            self._url((*at, "issuer"), model.issuer, path=True)
        if model.trust_domain is not None and not spiffe.is_trust_domain(model.trust_domain):
            problem = "is no trust domain: small letters, digits, `.`, `-` and `_`, as in `prod.example.com`"
            self._mistakes.note((*at, "trust_domain"), problem)
        once = model.once or model.kind == "id-jag"
        if model.session is not None:
            if not once:
                problem = 'is for assertions: with `once = true` or `kind = "id-jag"`'
                self._mistakes.note((*at, "session"), problem)
            if not 60 <= model.session <= MAX_SESSION_S:  # noqa: PLR2004 - a minute
                self._mistakes.note((*at, "session"), "must be between 60s and 24h")
        return Issuer(
            name=str(at[-1]),
            kind=model.kind,
            issuer=spiffe.namespace_of(model.trust_domain) if model.trust_domain else model.issuer or "",
            audience=self._across.own_issuer() if model.kind == "id-jag" else model.audience or "",
            jwks=None if model.jwks is None else self._jwks((*at, "jwks"), model.jwks),
            ca_file=self._file((*at, "ca_file"), model.ca_file),
            trust_domain=model.trust_domain,
            algorithms=self._algorithms(at, model, kind),
            types=self._types(at, model, kind),
            rules=self._rules((*at, "roles"), model),
            tenant=self._tenant(at, model.tenant),
            once=once,
            session_s=model.session,
            acr=acr_table(self._mistakes, (*at, "acr"), model.acr),
        )

    def _require_keys(self, at: KeyPath, model: IssuerSection, kind: _Kind) -> None:
        if self._mistakes.silent((*at, "kind")):
            return
        for key in kind.required:
            if getattr(model, key) is None:
                self._mistakes.note((*at, key), "is required")
        for key in kind.unwanted:
            if key in model.model_fields_set:
                self._mistakes.note((*at, key), _WHY_UNWANTED[key])

    def _algorithms(self, at: KeyPath, model: IssuerSection, kind: _Kind) -> tuple[str, ...]:
        if "algorithms" not in model.model_fields_set:
            return kind.algorithms
        for position, name in enumerate(model.algorithms):
            if name not in kind.algorithms:
                problem = f"{name!r} is not taken; known are {', '.join(kind.algorithms)}"
                self._mistakes.note((*at, "algorithms", position), problem, (name, kind.algorithms))
        if not model.algorithms:
            self._mistakes.note((*at, "algorithms"), "must name at least one")
        return tuple(model.algorithms)

    def _types(self, at: KeyPath, model: IssuerSection, kind: _Kind) -> tuple[str, ...]:
        if kind.types is not None and "types" not in model.model_fields_set:
            return kind.types
        types = tuple(each.lower().removeprefix("application/") for each in model.types)
        for position, name in enumerate(types):
            if name in _FOREIGN_TYPES:
                self._mistakes.note((*at, "types", position), _FOREIGN_TYPES[name])
        return types

    def _rules(self, at: KeyPath, model: IssuerSection) -> tuple[RoleRule, ...]:
        rules: list[RoleRule] = []
        for position, rule in enumerate(model.roles):
            where = (*at, position)
            self._across.require_known((*where, "role"), rule.role, "roles", "role")
            self._across.require_same_tenant((*where, "role"), rule.role, model.tenant)
            conditions = self._conditions(where, rule)
            if conditions:
                (claim, has), *also = conditions
                rules.append(RoleRule(claim=claim, has=has, role=rule.role, also=tuple(also)))
        return tuple(rules)

    def _conditions(self, at: KeyPath, rule: RoleRuleSection) -> list[tuple[str, str]]:
        """What a credential must say for the role: one claim, or all of several."""
        if rule.claims is None:
            for key in ("claim", "has"):
                if getattr(rule, key) is None:
                    self._mistakes.note((*at, key), "is required")
            return [(rule.claim or "", rule.has or "")]
        for key in ("claim", "has"):
            if getattr(rule, key) is not None:
                self._mistakes.note((*at, key), "stands beside `claims`: put it in there")
        self._across.require_claims((*at, "claims"))
        return list(rule.claims.items())
