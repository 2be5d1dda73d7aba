"""What is judged across the sections of a tools.toml: names that nobody has, and those that two share."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import cast

from broker.catalog import Backend, BrokerSettings, Issuer, Tool
from broker.delegation import TOOL
from broker.toml_document import Table, entry_at
from broker.toml_lines import KeyPath
from broker.tools_mistakes import Mistakes

BROKER = "broker"
"""The issuer of the sessions that nobody else vouches for."""

_ALIKE = str.maketrans("01i", "oll")
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_COMPOSED = frozenset({"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "patternProperties"})


class Across:
    """A name is known if the file has it: a tool with a mistake of its own is still one that a role may
    name."""

    def __init__(self, document: Table, mistakes: Mistakes) -> None:
        self._document = document
        self._mistakes = mistakes
        self._known: dict[str, list[str]] = {}

    # ── one section, in the light of the others ─────────────────────────────

    def require_known(self, at: KeyPath, name: str, section: str, what: str) -> None:
        if entry_at(self._document, section, name) is None:
            self._mistakes.note(at, f"there is no {what} {name!r}", (name, self._names(section)))

    def require_own_audience(self, at: KeyPath, audience: str) -> None:
        if audience.rstrip("/") == self.own_issuer():
            problem = "is the broker's own name: a session credential would be made out to this backend"
            self._mistakes.note(at, problem)

    def own_issuer(self) -> str:
        """The broker's own, as it will be in tokens."""
        return str(entry_at(self._document, "broker", "issuer") or "").rstrip("/")

    def tenant_of(self, section: str, name: str) -> str | None:
        """The tenant that a tool or a role of the file names."""
        found = entry_at(self._document, section, name, "tenant")
        return found if isinstance(found, str) else None

    def require_same_tenant(self, at: KeyPath, role: str, tenant: str | None) -> None:
        """A role of another tenant would grant nothing, and whoever wrote it meant something else."""
        owner = self.tenant_of("roles", role)
        if owner is not None and owner != tenant:
            whose = "an issuer of no tenant" if tenant is None else f"an issuer of tenant {tenant!r}"
            self._mistakes.note(at, f"{role!r} is a role of tenant {owner!r}, and this is {whose}")

    def require_own_tools(self, at: KeyPath, pattern: str, tenant: str | None) -> None:
        """A role of one tenant that names only tools of others grants nothing."""
        owners = {self.tenant_of("tools", tool) for tool in self._tools_of([pattern])}
        if tenant is not None and owners and owners.isdisjoint({None, tenant}):
            self._mistakes.note(at, f"no tool of tenant {tenant!r} is named {pattern!r}")

    def require_trust_domain(self, at: KeyPath) -> None:
        if entry_at(self._document, "broker", "trust_domain") is None:
            problem = "needs `trust_domain` in [broker]: a transaction token says where it is good"
            self._mistakes.note(at, problem)

    def require_spender(self, at: KeyPath, backend: str) -> None:
        """Where nobody may introspect, no token of the backend could ever be spent."""
        clients = self._names("clients")
        if not any(entry_at(self._document, "clients", name, "backend") == backend for name in clients):
            problem = f"no client has `backend = {backend!r}`, so nobody could ask for a token's one use"
            self._mistakes.note(at, problem)

    def require_grants(self, at: KeyPath) -> None:
        """By what the file says: grants that were left out for a mistake of theirs are not none."""
        if not entry_at(self._document, *at, "grants"):
            self._mistakes.note(at, "grants nothing; add an entry to `grants`, or remove the role")

    def require_claims(self, at: KeyPath) -> None:
        """By what the file says, as well."""
        if not entry_at(self._document, *at):
            self._mistakes.note(at, "asks for nothing: every credential would have the role")

    def require_tools(self, at: KeyPath, pattern: str) -> None:
        if not self._tools_of([pattern]):
            problem = f"no tool is named {pattern!r}"
            self._mistakes.note(at, problem, (pattern, self._names("tools")))

    def require_arguments(self, at: KeyPath, document: Table, patterns: Iterable[str]) -> None:
        """A condition on an argument that no tool has would limit nothing."""
        tools = self._tools_of(patterns)
        known: dict[str, None] = {}
        for tool in tools:
            declared = entry_at(self._document, "tools", tool, "input")
            if isinstance(declared, dict):
                input_schema = cast("Table", declared)
                if not properties_of(input_schema) or not _COMPOSED.isdisjoint(input_schema):
                    return  # which arguments there are does not stand in one place
                known.update(dict.fromkeys(properties_of(input_schema)))
            elif declared is not None:
                return
            else:
                # Without an `input`, the fields of the path are the arguments.
                known.update(
                    dict.fromkeys(_FIELD.findall(str(entry_at(self._document, "tools", tool, "request"))))
                )
        required = document.get("required", [])
        names: list[tuple[KeyPath, str]] = [(("properties", name), name) for name in properties_of(document)]
        if isinstance(required, list):
            names += [(("required",), str(name)) for name in cast("list[object]", required)]
        for path, name in names:
            if tools and name not in known:
                problem = f"no tool of this grant has an argument {name!r}"
                self._mistakes.note((*at, *path), problem, (name, known))

    # ── what was built, side by side ────────────────────────────────────────

    def require_distinct(
        self,
        settings: BrokerSettings | None,
        issuers: Mapping[str, Issuer],
        backends: Mapping[str, Backend],
    ) -> None:
        own: dict[tuple[str, bool], str] = {}
        if settings is not None:
            own = {(settings.issuer, grant): "the broker itself" for grant in (False, True)}
        if BROKER in self._names("issuers"):
            problem = "is taken: sessions that the broker opens itself have this issuer"
            self._mistakes.note(("issuers", BROKER), problem)
        for name, issuer in issuers.items():
            # An identity provider signs both, and their `typ` tells them apart.
            said = (issuer.issuer, issuer.kind == "id-jag")
            if said in own:
                key = "trust_domain" if issuer.kind == "spiffe" else "issuer"
                self._mistakes.note(("issuers", name, key), f"is also the issuer of {own[said]}")
            own.setdefault(said, f"issuers.{name}")
        audiences: dict[str, str] = {}
        for name, backend in backends.items():
            if backend.audience in audiences:
                other = audiences[backend.audience]
                problem = f"is also that of backends.{other}: a token of one would be good at the other"
                self._mistakes.note(("backends", name, "audience"), problem)
            audiences.setdefault(backend.audience, name)
        if settings is not None and settings.trust_domain is not None:
            taken = {settings.issuer: "broker.issuer"} | {
                audience: f"backends.{name}.audience" for audience, name in audiences.items()
            }
            if settings.trust_domain in taken:
                problem = (
                    f"is also {taken[settings.trust_domain]}: two kinds of token would have one audience"
                )
                self._mistakes.note(("broker", "trust_domain"), problem)

    def require_distinct_tools(self, tools: Mapping[str, Tool]) -> None:
        looks: dict[str, str] = {}
        for name in self._names("tools"):
            look = re.sub(r"[-_.]", "", name).lower().translate(_ALIKE)
            if look == TOOL:
                problem = f"is taken: `{TOOL}` is the broker's own tool, and this looks like it"
                self._mistakes.note(("tools", name), problem)
            if look in looks:
                self._mistakes.note(
                    ("tools", name), f"looks like tools.{looks[look]}: a model would mix them up"
                )
            looks.setdefault(look, name)
        requests: dict[tuple[str, str], Tool] = {}
        for name, tool in tools.items():
            request = (tool.backend.name, tool.request.shape)
            twin = requests.setdefault(request, tool)
            if twin.action != tool.action:
                problem = f"makes the same request as tools.{twin.name}, under another action"
                self._mistakes.note(("tools", name, "request"), problem)

    # ── names ───────────────────────────────────────────────────────────────

    def _names(self, section: str) -> list[str]:
        if section not in self._known:
            table = self._document.get(section, {})
            self._known[section] = list(cast("Table", table)) if isinstance(table, dict) else []
        return self._known[section]

    def _tools_of(self, patterns: Iterable[str]) -> list[str]:
        return [
            tool
            for tool in self._names("tools")
            if any(tool == pattern or ("*" in pattern and fnmatchcase(tool, pattern)) for pattern in patterns)
        ]


def properties_of(schema: Table) -> Table:
    found = schema.get("properties")
    return cast("Table", found) if isinstance(found, dict) else {}
