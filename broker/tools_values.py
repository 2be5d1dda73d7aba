"""A section of a tools.toml → a value of the catalog, if all that it says can be meant."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import SplitResult

from broker.canonical import Json
from broker.catalog import Backend, BrokerSettings, Delegate, Grant, Role, Tool
from broker.chain import principal_name
from broker.claims import MAX_TTL_S
from broker.credential import MAX_LIFE_S
from broker.errors import Code, Rejected, Usage
from broker.places import store_path
from broker.request import RequestTemplate, TemplateMistake
from broker.schema import Schema, SchemaMistake
from broker.toml_document import Table
from broker.toml_lines import KeyPath
from broker.tools_across import properties_of
from broker.tools_assurance import require_assurance
from broker.tools_grammar import (
    BackendSection,
    BrokerSection,
    DelegateSection,
    RoleSection,
    ToolSection,
)
from broker.tools_parts import Parts

MAX_ARGUMENTS = 4 * 1024 * 1024
MAX_RESPONSE = 64 * 1024 * 1024

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
_ONE_WORD = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,64}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_OWN_HEADERS = frozenset(
    {"authorization", "host", "content-length", "content-type", "transfer-encoding", "connection"}
    | {"cookie", "accept", "accept-encoding", "te", "trailer", "upgrade", "expect", "dpop", "txn-token"}
)


class Values(Parts):
    """The sections of what agents may do."""

    def broker(self, at: KeyPath, model: BrokerSection) -> BrokerSettings | None:
        url = self._url((*at, "issuer"), model.issuer, path=False)
        listen = self._listen((*at, "listen"), model.listen, url)
        if not 1 <= model.checkpoint_every <= 86400:  # noqa: PLR2004 - a day
            self._mistakes.note((*at, "checkpoint_every"), "must be between 1s and 1d")
        self._require_size((*at, "max_arguments"), model.max_arguments, MAX_ARGUMENTS)
        try:
            store = str(store_path(model.store, self._folder))
        except Usage as error:
            self._mistakes.note((*at, "store"), error.message)
            return None
        return BrokerSettings(
            issuer=model.issuer.rstrip("/"),
            listen=listen,
            store=store,
            keys=self._path(model.keys),
            checkpoint_file=None if model.checkpoint_file is None else self._path(model.checkpoint_file),
            checkpoint_every_s=model.checkpoint_every,
            max_arguments_bytes=model.max_arguments,
            max_calls=model.max_calls,
            max_actors=model.max_actors,
            trust_domain=self._trust_domain((*at, "trust_domain"), model.trust_domain),
            tiles=model.tiles,
        )

    def _trust_domain(self, at: KeyPath, name: str | None) -> str | None:
        if name is not None and not _ONE_WORD.fullmatch(name):
            self._mistakes.note(at, "must be one name, without spaces: trust-domain.example")
        return name

    def _listen(self, at: KeyPath, listen: str | None, url: SplitResult | None) -> tuple[str, int]:
        if listen is not None:
            host, _, port = listen.rpartition(":")
            if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP
                self._mistakes.note(at, 'write it as "HOST:PORT"')
                return ("127.0.0.1", 0)
            return (host.strip("[]"), int(port))
        if url is None:
            return ("127.0.0.1", 0)
        return (url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80))

    def backend(self, at: KeyPath, model: BackendSection) -> Backend:
        self._url((*at, "url"), model.url, path=True)
        if not self._is_uri(model.audience):
            problem = (
                "must be an absolute URI without query and fragment (RFC 8707 §2): https://orders.example.com"
            )
            self._mistakes.note((*at, "audience"), problem)
        self._across.require_own_audience((*at, "audience"), model.audience)
        if model.single_use == "introspect":
            self._across.require_spender((*at, "single_use"), str(at[-1]))
        if not 1 <= model.timeout <= 600:  # noqa: PLR2004 - ten minutes
            self._mistakes.note((*at, "timeout"), "must be between 1s and 10m")
        self._require_size((*at, "max_response"), model.max_response, MAX_RESPONSE)
        if model.txn_token:
            self._across.require_trust_domain((*at, "txn_token"))
        return Backend(
            name=str(at[-1]),
            kind=model.kind,
            url=model.url.rstrip("/"),
            audience=model.audience,
            ca_file=self._file((*at, "ca_file"), model.ca_file),
            headers=self._headers((*at, "headers"), model.headers),
            timeout_s=model.timeout,
            max_response_bytes=model.max_response,
            max_concurrent=model.max_concurrent,
            dpop=model.dpop,
            single_use=model.single_use,
            unchecked_bodies=model.unchecked_bodies,
            txn_token=model.txn_token,
        )

    def tool(self, at: KeyPath, model: ToolSection, backends: Mapping[str, Backend]) -> Tool | None:
        self._across.require_known((*at, "backend"), model.backend, "backends", "backend")
        if not _SCOPE.fullmatch(model.action):
            self._mistakes.note(
                (*at, "action"), "must be one scope (RFC 6749 §3.3): no spaces, as in `orders:read`"
            )
        if not 1 <= model.ttl <= MAX_TTL_S:
            self._mistakes.note((*at, "ttl"), f"must be between 1s and {MAX_TTL_S}s")
        require_assurance(self._mistakes, at, acr=model.acr, max_age_s=model.max_age)
        template = self._template((*at, "request"), model.request)
        document = _default_input(template) if model.input is None else model.input
        schema = self._schema((*at, "input"), document)
        if template is not None and schema is not None and not self._mistakes.silent((*at, "input")):
            self._require_fields(at, template, document)
        output = None if model.output is None else self._schema((*at, "output"), model.output)
        properties = properties_of(document)
        for position, name in enumerate(model.keep):
            if name not in properties and not self._mistakes.silent((*at, "input")):
                problem = f"the input schema has no property {name!r}"
                self._mistakes.note((*at, "keep", position), problem, (name, properties))
        headers = self._headers((*at, "headers"), model.headers)
        if model.max_response is not None:
            self._require_size((*at, "max_response"), model.max_response, MAX_RESPONSE)
        backend = backends.get(model.backend)
        if backend is None or template is None or schema is None:
            return None
        timeout = backend.timeout_s if model.timeout is None else model.timeout
        if not 1 <= timeout <= 600:  # noqa: PLR2004 - ten minutes
            self._mistakes.note((*at, "timeout"), "must be between 1s and 10m")
        return Tool(
            name=str(at[-1]),
            title=model.title,
            description=model.description,
            backend=backend,
            action=model.action,
            request=template,
            input=schema,
            output=output,
            acr=model.acr,
            max_age_s=model.max_age,
            ttl_s=model.ttl,
            timeout_s=timeout,
            max_response_bytes=model.max_response or backend.max_response_bytes,
            headers=_merged(backend.headers, headers),
            keep=frozenset(model.keep),
            tenant=self._tenant(at, model.tenant),
        )

    def role(self, at: KeyPath, model: RoleSection) -> Role:
        if not model.grants and not model.delegate:
            self._across.require_grants(at)
        grants: list[Grant] = []
        for position, grant in enumerate(model.grants):
            where = (*at, "grants", position)
            for number, pattern in enumerate(grant.tools):
                self._pattern((*where, "tools", number), pattern, model.tenant)
            arguments = None
            if grant.arguments is not None:
                arguments = self._schema((*where, "arguments"), grant.arguments)
                self._across.require_arguments((*where, "arguments"), grant.arguments, grant.tools)
            grants.append(
                Grant(
                    rule=f"roles.{at[-1]}.grants[{position}]",
                    tools=tuple(grant.tools),
                    arguments=arguments,
                    rate=grant.rate,
                    until_s=grant.until,
                )
            )
        delegates = tuple(
            self._delegate(
                (*at, "delegate", position), each, f"roles.{at[-1]}.delegate[{position}]", model.tenant
            )
            for position, each in enumerate(model.delegate)
        )
        tenant = self._tenant(at, model.tenant)
        return Role(name=str(at[-1]), grants=tuple(grants), delegates=delegates, tenant=tenant)

    def _delegate(self, at: KeyPath, model: DelegateSection, rule: str, tenant: str | None) -> Delegate:
        if model.issuer != "broker":
            self._across.require_known((*at, "issuer"), model.issuer, "issuers", "issuer")
        for number, name in enumerate(model.to):
            try:
                principal_name(name, "to", Code.CATALOG_INVALID)
            except Rejected as rejected:
                self._mistakes.note((*at, "to", number), rejected.message)
        for number, pattern in enumerate(model.tools):
            self._pattern((*at, "tools", number), pattern, tenant)
        if not 1 <= model.for_s <= MAX_LIFE_S:
            self._mistakes.note((*at, "for"), f"must be between 1s and {MAX_LIFE_S // 86400}d")
        return Delegate(
            rule=rule,
            issuer=model.issuer,
            to=tuple(model.to),
            tools=tuple(model.tools),
            for_s=model.for_s,
        )

    def _pattern(self, at: KeyPath, pattern: str, tenant: str | None) -> None:
        if not _PATTERN.fullmatch(pattern):
            self._mistakes.note(at, "a pattern has letters, digits, `_`, `-`, `.` and `*`")
        else:
            self._across.require_tools(at, pattern)
            self._across.require_own_tools(at, pattern, tenant)

    # ── parts ───────────────────────────────────────────────────────────────

    def _require_size(self, at: KeyPath, size: int, most: int) -> None:
        if size > most:
            self._mistakes.note(at, f"must be at most {most // 1024**2}MiB")

    def _headers(self, at: KeyPath, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        names: set[str] = set()
        for name, value in headers.items():
            if name.lower() in names:
                self._mistakes.note((*at, name), "stands there twice: the names of headers have no case")
            names.add(name.lower())
            if not _HEADER.fullmatch(name):
                self._mistakes.note((*at, name), "not the name of a header")
            elif name.lower() in _OWN_HEADERS:
                self._mistakes.note((*at, name), "the broker sets this header itself")
            elif not value.isascii() or not value.isprintable() or value != value.strip():
                self._mistakes.note((*at, name), "a header's value is printable ASCII, on one line")
        return tuple(headers.items())

    def _template(self, at: KeyPath, text: str) -> RequestTemplate | None:
        try:
            return RequestTemplate.parse(text)
        except TemplateMistake as mistake:
            self._mistakes.note(at, str(mistake))
            return None

    def _schema(self, at: KeyPath, document: Mapping[str, Json]) -> Schema | None:
        try:
            return Schema(document)
        except SchemaMistake as mistake:
            for each in mistake.problems:
                near = (each.name, each.known) if each.known else None
                self._mistakes.note((*at, *each.path), each.problem, near)
            return None

    def _require_fields(self, at: KeyPath, template: RequestTemplate, document: Table) -> None:
        """A path without one of its fields is another path."""
        if document.get("type") != "object":
            self._mistakes.note((*at, "input"), 'must say `type = "object"`: a tool\'s arguments have names')
            return
        properties = properties_of(document)
        for name in template.fields:
            if name not in properties:
                problem = f"the input schema has no property {name!r}, which the path needs"
                self._mistakes.note((*at, "request"), problem, (name, properties))
                continue
            if name not in document.get("required", []):
                self._mistakes.note((*at, "input"), f"{name!r} must be in `required`: the path needs it")
            kind = cast("Table", properties[name]).get("type") if isinstance(properties[name], dict) else None
            if kind not in {"string", "integer"}:
                problem = f"{name!r} must have the type string or integer: it goes into the path"
                self._mistakes.note((*at, "input", "properties", name), problem)
        if not template.has_body:
            self._require_plain((*at, "input", "properties"), properties, template.fields)

    def _require_plain(self, at: KeyPath, properties: Table, fields: tuple[str, ...]) -> None:
        """In a query the text 1 and the number 1 look alike: a `maximum` would not stop `"500"`."""
        for name, schema in properties.items():
            if name in fields or not isinstance(schema, dict):
                continue
            inner = cast("Table", schema)
            if inner.get("type") == "array" and isinstance(inner.get("items"), dict):
                inner = cast("Table", inner["items"])
            if inner.get("type") not in {"string", "integer", "number", "boolean"}:
                problem = (
                    f"{name!r} must have one type (string, integer, number, boolean, or an array of one of "
                    "them): it goes into the query, where a number and its text look alike"
                )
                self._mistakes.note((*at, name), problem)


def _merged(one: Iterable[tuple[str, str]], other: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """A tool's headers, and those of its backend that it does not replace."""
    found = {name.lower(): (name, value) for name, value in (*one, *other)}
    return tuple(found.values())


def _default_input(template: RequestTemplate | None) -> dict[str, Any]:
    fields = () if template is None else template.fields
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in fields},
        "required": list(fields),
        "additionalProperties": False,
    }
