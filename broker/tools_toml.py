"""tools.toml → catalog: every mistake in it at once, each with its line, or none at all."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from broker.canonical import Json, digest
from broker.catalog import (
    Backend,
    BrokerSettings,
    Catalog,
    Grant,
    Issuer,
    Role,
    RoleRule,
    Tool,
)
from broker.claims import MAX_TTL_S
from broker.errors import CatalogInvalid, Mistake, Usage
from broker.loopback import is_loopback
from broker.places import store_path, unreadable
from broker.plain_text import plain
from broker.policy import ASSURANCE
from broker.request import RequestTemplate, TemplateMistake
from broker.schema import Schema, SchemaMistake
from broker.session_claims import SESSION_TYP
from broker.toml_lines import KeyPath, key_lines
from broker.tools_grammar import (
    INNER,
    SECTIONS,
    BackendSection,
    BrokerSection,
    IssuerSection,
    RoleSection,
    Section,
    ToolSection,
)
from broker.verify import ALGORITHMS

T = TypeVar("T")
Table: TypeAlias = Mapping[str, Any]

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
"""Tables and arrays inside each other; a JSON Schema that deep fits no arguments (see `canonical`)."""
MAX_ARGUMENTS = 4 * 1024 * 1024
MAX_RESPONSE = 64 * 1024 * 1024

_LONG_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){200}"""
)
_SECOND = re.compile(r"[ \t]*\[{0,2}[ \t]*([A-Za-z0-9_.\"'-]+)")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ALIKE = str.maketrans("01i", "oll")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,64}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_OWN_HEADERS = frozenset(
    {"authorization", "host", "content-length", "content-type", "transfer-encoding", "connection"}
    | {"cookie", "accept", "accept-encoding", "te", "trailer", "upgrade", "expect", "dpop", "txn-token"}
)
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# `urlsplit` drops line ends and tabs without a word, and takes `${HOST}` for a host.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST = re.compile(r"(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
_COMPOSED = frozenset({"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "patternProperties"})


_STAND_INS: Mapping[str, object] = {
    **dict.fromkeys(("issuer", "audience", "jwks", "url"), "https://stand.in"),
    **dict.fromkeys(("claim", "has", "role", "backend", "action"), "x"),
    "request": "GET /",
    "tools": ["*"],
}
"""What is required, so that the rest of a section can be judged without it."""
_STAND_IN_MEMBERS: Mapping[str, object] = {
    "grants": {"tools": ["*"]},
    "roles": {"claim": "x", "has": "x", "role": "x"},
    "tools": "*",
    "keep": "x",
    "algorithms": "ES256",
    "types": "",
}
_MAX_NEAREST = 200
"""Beyond that nobody reads them, and each costs more the more names there are."""


# ── the door ────────────────────────────────────────────────────────────────


def load(path: Path) -> Catalog:
    """Read a tools.toml.

    Raises:
        CatalogInvalid: with all of its mistakes. Usage: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(text) > MAX_BYTES:
        raise Usage(f"{path} is larger than {MAX_BYTES} bytes")
    return parse(text, source=str(path), folder=path.absolute().parent)


def parse(text: bytes, *, source: str, folder: Path) -> Catalog:
    """The catalog in a TOML text; relative paths in it are relative to `folder`.

    Raises:
        CatalogInvalid: with all of its mistakes, in the order of their lines. What is no TOML has one.
    """
    try:
        characters = _characters(text)
        document = _document(characters)
    except _NotToml as mistake:
        raise CatalogInvalid(source, (mistake.mistake,)) from None
    reader = _Reader(document, key_lines(characters), folder)
    catalog = reader.catalog(source, digest(text))
    if reader.mistakes or catalog is None:
        raise CatalogInvalid(source, tuple(sorted(reader.mistakes, key=lambda each: (each.line, each.key))))
    return catalog


class _NotToml(Exception):
    def __init__(self, line: int, key: str, problem: str) -> None:
        super().__init__(problem)
        self.mistake = Mistake(line=line, key=plain(key), problem=plain(problem, 400))


def _characters(text: bytes) -> str:
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise _NotToml(line, "(file)", "not UTF-8") from None
    if characters.startswith("\ufeff"):
        raise _NotToml(1, "(file)", "begins with a byte order mark; save it as UTF-8 without one")
    return characters


def _document(text: str) -> Table:
    """The TOML in `text`, no deeper than all that is done with it can go."""
    try:
        # tomllib takes quadratic time for these.
        if found := _LONG_KEY.search(text):
            raise _NotToml(text.count("\n", 0, found.start()) + 1, "(syntax)", "a key of 200 parts")
        document = tomllib.loads(text)
        if _depth_over(document, MAX_DEPTH):
            raise RecursionError
    except tomllib.TOMLDecodeError as error:
        raise _syntax(text, str(error)) from None
    except RecursionError:
        lines = text.splitlines() or [""]
        line = max(range(len(lines)), key=lambda each: sum(map(lines[each].count, "[{."))) + 1
        problem = f"tables and arrays are more than {MAX_DEPTH} levels deep"
        raise _NotToml(line, "(syntax)", problem) from None
    except ValueError:
        # Python converts no number of more than 4300 digits, and tomllib lets its error through.
        long = re.search(r"[0-9_]{4300}", text)
        line = text.count("\n", 0, long.start() if long else 0) + 1
        raise _NotToml(line, "(syntax)", "not TOML: a number has too many digits") from None
    return document


def _syntax(text: str, error: str) -> _NotToml:
    found = re.search(r"\(at line (\d+)", error)
    line = int(found[1]) if found else text.count("\n") + 1
    problem = re.sub(r" [(]at .*[)]$", "", error)
    if problem.startswith(("Cannot overwrite a value", "Cannot declare", "Duplicate inline")):
        # The parser has the place and not the name.
        here = text.split("\n")[line - 1]
        name = _SECOND.match(here)
        key = name[1] if name else "(syntax)"
        return _NotToml(line, key, "stands in the file a second time; a key has one value")
    return _NotToml(line, "(syntax)", f"not TOML: {problem}")


def _depth_over(document: Table, most: int) -> bool:
    level: list[object] = [document]
    for _ in range(most):
        level = [
            member
            for each in level
            for member in (
                cast("Table", each).values() if isinstance(each, dict) else cast("list[object]", each)
            )
            if isinstance(member, dict | list)
        ]
    return bool(level)


class _Reader:
    """Reads a document and gathers its mistakes: each part is judged even where another is wrong."""

    def __init__(self, document: Table, lines: Mapping[KeyPath, int], folder: Path) -> None:
        self._document = document
        self._lines = lines
        self._folder = folder
        self._known: dict[str, list[str]] = {}
        self._silent: set[KeyPath] = set()
        self.mistakes: list[Mistake] = []

    def catalog(self, source: str, file_digest: str) -> Catalog | None:
        self._require_sections()
        declared = cast("object", self._document.get("broker"))
        settings = None
        if isinstance(declared, dict):
            settings = self._read(BrokerSection, ("broker",), cast("object", declared), self._broker)
        issuers = self._section("issuers", IssuerSection, self._issuer)
        backends = self._section("backends", BackendSection, self._backend)
        tools = self._section("tools", ToolSection, lambda at, model: self._tool(at, model, backends))
        roles = self._section("roles", RoleSection, self._role)
        self._require_distinct(settings, issuers, backends)
        self._require_distinct_tools(tools)
        if settings is None:
            return None
        return Catalog(
            source=source,
            digest=file_digest,
            broker=settings,
            issuers=issuers,
            backends=backends,
            tools=tools,
            roles=roles,
        )

    # ── gathering ───────────────────────────────────────────────────────────

    def mistake(self, at: KeyPath, problem: str, near: tuple[str, Iterable[str]] | None = None) -> None:
        """Note a mistake, on the line of the key or of the nearest one around it.

        Args:
            near: the name that is not known, and those that are.
        """
        if any(at[:length] in self._silent for length in range(len(at) + 1)):
            return  # of what stands in for something whose own mistake has been told
        place = at
        while place and place not in self._lines:
            place = place[:-1]
        key = ""
        for part in at:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
        self.mistakes.append(
            Mistake(
                line=self._lines.get(place, 1),
                # A file may hold anything, and these end in a terminal.
                key=plain(key) or "(file)",
                problem=plain(problem, 600),
                nearest=plain(_nearest(*near)) if near and len(self.mistakes) < _MAX_NEAREST else "",
            )
        )

    def _names(self, section: str) -> list[str]:
        if section not in self._known:
            table = self._document.get(section, {})
            self._known[section] = list(cast("Table", table)) if isinstance(table, dict) else []
        return self._known[section]

    def _require_known(self, at: KeyPath, name: str, section: str, what: str) -> None:
        if _entries(self._document, section, name) is None:
            self.mistake(at, f"there is no {what} {name!r}", (name, self._names(section)))

    def _require_sections(self) -> None:
        known = ["broker", *SECTIONS]
        for name, table in self._document.items():
            if name not in known:
                problem = f"unknown section; the known ones are {', '.join(known)}"
                self.mistake((name,), problem, (name, known))
            elif not isinstance(table, dict):
                self.mistake((name,), f"must be a table: write [{name}] or [{name}.NAME]")
        if "broker" not in self._document:
            self.mistake((), "the section [broker] is missing; it needs at least `issuer`")

    def _section(
        self, section: str, model: type[Section], build: "Callable[[KeyPath, Any], T | None]"
    ) -> dict[str, T]:
        built: dict[str, T] = {}
        table = self._document.get(section, {})
        for name, entry in cast("Table", table if isinstance(table, dict) else {}).items():
            at = (section, name)
            if not _NAME.fullmatch(name):
                self.mistake(at, "a name has 1 to 64 letters, digits, `_`, `-` or `.`")
            made = self._read(model, at, entry, build)
            if made is not None:
                built[name] = made
        return built

    def _read(
        self, model: type[Section], at: KeyPath, entry: object, build: "Callable[[KeyPath, Any], T | None]"
    ) -> T | None:
        before = len(self.mistakes)
        try:
            read = model.model_validate(entry)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            for each in errors:
                self._grammar_mistake(model, at, each)
            # What is left may have other mistakes: say them too, with something harmless in the place of
            # what is wrong or missing. Nothing is built of it.
            try:
                read = model.model_validate(self._repaired(at, entry, errors))
            except ValidationError:
                return None
        made = build(at, read)
        return made if len(self.mistakes) == before else None

    def _repaired(self, at: KeyPath, entry: object, errors: list[ErrorDetails]) -> object:
        copied = _copy(entry)
        for error in errors:
            place = tuple(part for part in error["loc"] if part != "[key]")
            if not place:
                return None
            self._silent.add((*at, *place))
            parent = _entries(copied, *place[:-1])
            last = place[-1]
            if isinstance(parent, dict):
                table = cast("dict[str, object]", parent)
                table.pop(str(last), None)
                if error["type"] != "extra_forbidden" and last in _STAND_INS and _required(at, place):
                    table[str(last)] = _STAND_INS[str(last)]
            elif isinstance(parent, list) and isinstance(last, int):
                cast("list[object]", parent)[last] = _STAND_IN_MEMBERS.get(str(place[-2]))
        return copied

    def _grammar_mistake(self, model: type[Section], at: KeyPath, error: ErrorDetails) -> None:
        where = (*at, *(part for part in error["loc"] if part != "[key]"))
        message = str(error["msg"])
        match error["type"]:
            case "extra_forbidden":
                known = _fields_at(model, error["loc"][:-1])
                name = str(error["loc"][-1])
                self.mistake(where, f"unknown key; known are {', '.join(known)}", (name, known))
            case "missing":
                self.mistake(where, "is required")
            case "model_type" | "dict_type":
                self.mistake(where, "must be a table")
            case "list_type":
                self.mistake(where, "must be an array")
            case "string_type" | "int_type":
                self.mistake(where, f"must be {message.removeprefix('Input should be ')}")
            case "value_error":
                self.mistake(where, message.removeprefix("Value error, "))
            case _:
                self.mistake(where, message[:1].lower() + message[1:])

    # ── building ────────────────────────────────────────────────────────────

    def _broker(self, at: KeyPath, model: BrokerSection) -> BrokerSettings | None:
        url = self._url((*at, "issuer"), model.issuer, path=False)
        listen = self._listen((*at, "listen"), model.listen, url)
        if not 1 <= model.checkpoint_every <= 86400:  # noqa: PLR2004 - a day
            self.mistake((*at, "checkpoint_every"), "must be between 1s and 1d")
        self._require_size((*at, "max_arguments"), model.max_arguments, MAX_ARGUMENTS)
        try:
            store = str(store_path(model.store, self._folder))
        except Usage as error:
            self.mistake((*at, "store"), error.message)
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
        )

    def _listen(self, at: KeyPath, listen: str | None, url: SplitResult | None) -> tuple[str, int]:
        if listen is not None:
            host, _, port = listen.rpartition(":")
            if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP
                self.mistake(at, 'write it as "HOST:PORT"')
                return ("127.0.0.1", 0)
            return (host.strip("[]"), int(port))
        if url is None:
            return ("127.0.0.1", 0)
        return (url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80))

    def _issuer(self, at: KeyPath, model: IssuerSection) -> Issuer:
        remote = model.jwks.startswith(("http://", "https://"))
        if remote:
            self._url((*at, "jwks"), model.jwks, path=True)
        elif not Path(self._path(model.jwks)).is_file():
            self.mistake((*at, "jwks"), f"there is no file {model.jwks!r}, and it is no http(s) URL")
        for position, name in enumerate(model.algorithms):
            if name not in ALGORITHMS:
                problem = f"{name!r} is not taken; known are {', '.join(ALGORITHMS)}"
                self.mistake((*at, "algorithms", position), problem, (name, ALGORITHMS))
        if not model.algorithms:
            self.mistake((*at, "algorithms"), "must name at least one")
        for position, name in enumerate(model.types):
            if name.lower().removeprefix("application/") == SESSION_TYP:
                self.mistake((*at, "types", position), "is the type of the broker's own credentials")
        for position, rule in enumerate(model.roles):
            self._require_known((*at, "roles", position, "role"), rule.role, "roles", "role")
        return Issuer(
            name=str(at[-1]),
            issuer=model.issuer,
            audience=model.audience,
            jwks=model.jwks if remote else self._path(model.jwks),
            algorithms=tuple(model.algorithms),
            types=tuple(each.lower().removeprefix("application/") for each in model.types),
            rules=tuple(RoleRule(claim=each.claim, has=each.has, role=each.role) for each in model.roles),
        )

    def _backend(self, at: KeyPath, model: BackendSection) -> Backend:
        self._url((*at, "url"), model.url, path=True)
        try:
            audience = urlsplit(model.audience)
        except ValueError:
            audience = urlsplit("")
        if (
            not audience.scheme
            or not _URL.fullmatch(model.audience)
            or not (audience.netloc or audience.path)
            or audience.fragment
            or audience.query
        ):
            problem = (
                "must be an absolute URI without query and fragment (RFC 8707 §2): https://orders.example.com"
            )
            self.mistake((*at, "audience"), problem)
        if model.audience.rstrip("/") == str(_entries(self._document, "broker", "issuer")).rstrip("/"):
            problem = "is the broker's own name: a session credential would be made out to this backend"
            self.mistake((*at, "audience"), problem)
        if not 1 <= model.timeout <= 600:  # noqa: PLR2004 - ten minutes
            self.mistake((*at, "timeout"), "must be between 1s and 10m")
        self._require_size((*at, "max_response"), model.max_response, MAX_RESPONSE)
        ca_file = None if model.ca_file is None else self._path(model.ca_file)
        if ca_file is not None and not Path(ca_file).is_file():
            self.mistake((*at, "ca_file"), f"there is no file {model.ca_file!r}")
        return Backend(
            name=str(at[-1]),
            kind=model.kind,
            url=model.url.rstrip("/"),
            audience=model.audience,
            ca_file=ca_file,
            headers=self._headers((*at, "headers"), model.headers),
            timeout_s=model.timeout,
            max_response_bytes=model.max_response,
            max_concurrent=model.max_concurrent,
        )

    def _tool(self, at: KeyPath, model: ToolSection, backends: Mapping[str, Backend]) -> Tool | None:
        self._require_known((*at, "backend"), model.backend, "backends", "backend")
        if not _SCOPE.fullmatch(model.action):
            self.mistake((*at, "action"), "must be one scope (RFC 6749 §3.3): no spaces, as in `orders:read`")
        if not 1 <= model.ttl <= MAX_TTL_S:
            self.mistake((*at, "ttl"), f"must be between 1s and {MAX_TTL_S}s")
        if model.acr is not None and model.acr not in ASSURANCE:
            problem = f"{model.acr!r} is not known; known are {', '.join(ASSURANCE)}"
            self.mistake((*at, "acr"), problem, (model.acr, ASSURANCE))
        template = self._template((*at, "request"), model.request)
        document = _default_input(template) if model.input is None else model.input
        schema = self._schema((*at, "input"), document)
        if template is not None and schema is not None and (*at, "input") not in self._silent:
            self._require_fields(at, template, document)
        output = None if model.output is None else self._schema((*at, "output"), model.output)
        properties = _properties(document)
        for position, name in enumerate(model.keep):
            if name not in properties and (*at, "input") not in self._silent:
                problem = f"the input schema has no property {name!r}"
                self.mistake((*at, "keep", position), problem, (name, properties))
        headers = self._headers((*at, "headers"), model.headers)
        if model.max_response is not None:
            self._require_size((*at, "max_response"), model.max_response, MAX_RESPONSE)
        backend = backends.get(model.backend)
        if backend is None or template is None or schema is None:
            return None
        timeout = backend.timeout_s if model.timeout is None else model.timeout
        if not 1 <= timeout <= 600:  # noqa: PLR2004 - ten minutes
            self.mistake((*at, "timeout"), "must be between 1s and 10m")
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
            ttl_s=model.ttl,
            timeout_s=timeout,
            max_response_bytes=model.max_response or backend.max_response_bytes,
            headers=_merged(backend.headers, headers),
            keep=frozenset(model.keep),
        )

    def _role(self, at: KeyPath, model: RoleSection) -> Role:
        if not model.grants and not _entries(self._document, *at, "grants"):
            self.mistake(at, "grants nothing; add an entry to `grants`, or remove the role")
        grants: list[Grant] = []
        for position, grant in enumerate(model.grants):
            where = (*at, "grants", position)
            for number, pattern in enumerate(grant.tools):
                if not _PATTERN.fullmatch(pattern):
                    problem = "a pattern has letters, digits, `_`, `-`, `.` and `*`"
                    self.mistake((*where, "tools", number), problem)
                elif not self._tools_of([pattern]):
                    problem = f"no tool is named {pattern!r}"
                    self.mistake((*where, "tools", number), problem, (pattern, self._names("tools")))
            arguments = None
            if grant.arguments is not None:
                arguments = self._schema((*where, "arguments"), grant.arguments)
                self._require_arguments((*where, "arguments"), grant.arguments, self._tools_of(grant.tools))
            grants.append(
                Grant(
                    rule=f"roles.{at[-1]}.grants[{position}]",
                    tools=tuple(grant.tools),
                    arguments=arguments,
                    rate=grant.rate,
                    until_s=grant.until,
                )
            )
        return Role(name=str(at[-1]), grants=tuple(grants))

    # ── parts ───────────────────────────────────────────────────────────────

    def _path(self, path: str) -> str:
        return str((self._folder / path).absolute())

    def _url(self, at: KeyPath, text: str, *, path: bool) -> SplitResult | None:
        """An http(s) URL that says where to go and nothing else; http only to this machine."""
        try:
            url = urlsplit(text)
            port_fits = url.port is None or url.port > 0
        except ValueError:
            url, port_fits = urlsplit(""), False
        host = url.hostname or ""
        if (
            url.scheme not in {"http", "https"}
            or not port_fits
            or not _URL.fullmatch(text)
            or not (_HOST.fullmatch(host) or _is_address(host))
        ):
            self.mistake(at, "must be an http or https URL")
        elif url.query or url.fragment or url.username is not None or "?" in text or "#" in text:
            self.mistake(at, "must have no query, fragment, user or password")
        elif not path and url.path not in {"", "/"}:
            self.mistake(at, "must have no path")
        elif url.scheme == "http" and not is_loopback(host):
            self.mistake(at, "plain http is for this machine only (127.0.0.1, localhost): use https")
        else:
            return url
        return None

    def _require_size(self, at: KeyPath, size: int, most: int) -> None:
        if size > most:
            self.mistake(at, f"must be at most {most // 1024**2}MiB")

    def _headers(self, at: KeyPath, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        names: set[str] = set()
        for name, value in headers.items():
            if name.lower() in names:
                self.mistake((*at, name), "stands there twice: the names of headers have no case")
            names.add(name.lower())
            if not _HEADER.fullmatch(name):
                self.mistake((*at, name), "not the name of a header")
            elif name.lower() in _OWN_HEADERS:
                self.mistake((*at, name), "the broker sets this header itself")
            elif not value.isascii() or not value.isprintable() or value != value.strip():
                self.mistake((*at, name), "a header's value is printable ASCII, on one line")
        return tuple(headers.items())

    def _template(self, at: KeyPath, text: str) -> RequestTemplate | None:
        try:
            return RequestTemplate.parse(text)
        except TemplateMistake as mistake:
            self.mistake(at, str(mistake))
            return None

    def _schema(self, at: KeyPath, document: Mapping[str, Json]) -> Schema | None:
        try:
            return Schema(document)
        except SchemaMistake as mistake:
            for each in mistake.problems:
                near = (each.name, each.known) if each.known else None
                self.mistake((*at, *each.path), each.problem, near)
            return None

    def _require_fields(self, at: KeyPath, template: RequestTemplate, document: Table) -> None:
        """A path without one of its fields is another path."""
        if document.get("type") != "object":
            self.mistake((*at, "input"), 'must say `type = "object"`: a tool\'s arguments have names')
            return
        properties = _properties(document)
        for name in template.fields:
            if name not in properties:
                problem = f"the input schema has no property {name!r}, which the path needs"
                self.mistake((*at, "request"), problem, (name, properties))
                continue
            if name not in document.get("required", []):
                self.mistake((*at, "input"), f"{name!r} must be in `required`: the path needs it")
            kind = cast("Table", properties[name]).get("type") if isinstance(properties[name], dict) else None
            if kind not in {"string", "integer"}:
                problem = f"{name!r} must have the type string or integer: it goes into the path"
                self.mistake((*at, "input", "properties", name), problem)
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
                self.mistake((*at, name), problem)

    def _require_arguments(self, at: KeyPath, document: Table, tools: list[str]) -> None:
        """A condition on an argument that no tool has would limit nothing."""
        known: dict[str, None] = {}
        for tool in tools:
            declared = _entries(self._document, "tools", tool, "input")
            if isinstance(declared, dict):
                input_schema = cast("Table", declared)
                if not _properties(input_schema) or not _COMPOSED.isdisjoint(input_schema):
                    return  # which arguments there are does not stand in one place
                known.update(dict.fromkeys(_properties(input_schema)))
            elif declared is not None:
                return
            else:
                # Without an `input`, the fields of the path are the arguments.
                known.update(
                    dict.fromkeys(_FIELD.findall(str(_entries(self._document, "tools", tool, "request"))))
                )
        required = document.get("required", [])
        names: list[tuple[KeyPath, str]] = [(("properties", name), name) for name in _properties(document)]
        if isinstance(required, list):
            names += [(("required",), str(name)) for name in cast("list[object]", required)]
        for path, name in names:
            if tools and name not in known:
                problem = f"no tool of this grant has an argument {name!r}"
                self.mistake((*at, *path), problem, (name, known))

    def _tools_of(self, patterns: Iterable[str]) -> list[str]:
        return [
            tool
            for tool in self._names("tools")
            if any(tool == pattern or ("*" in pattern and fnmatchcase(tool, pattern)) for pattern in patterns)
        ]

    # ── over all ────────────────────────────────────────────────────────────

    def _require_distinct(
        self,
        settings: BrokerSettings | None,
        issuers: Mapping[str, Issuer],
        backends: Mapping[str, Backend],
    ) -> None:
        own = {} if settings is None else {settings.issuer: "the broker itself"}
        for name, issuer in issuers.items():
            if issuer.issuer in own:
                self.mistake(("issuers", name, "issuer"), f"is also the issuer of {own[issuer.issuer]}")
            own.setdefault(issuer.issuer, f"issuers.{name}")
        audiences: dict[str, str] = {}
        for name, backend in backends.items():
            if backend.audience in audiences:
                other = audiences[backend.audience]
                problem = f"is also that of backends.{other}: a token of one would be good at the other"
                self.mistake(("backends", name, "audience"), problem)
            audiences.setdefault(backend.audience, name)

    def _require_distinct_tools(self, tools: Mapping[str, Tool]) -> None:
        looks: dict[str, str] = {}
        for name in self._names("tools"):
            look = re.sub(r"[-_.]", "", name).lower().translate(_ALIKE)
            if look in looks:
                self.mistake(("tools", name), f"looks like tools.{looks[look]}: a model would mix them up")
            looks.setdefault(look, name)
        requests: dict[tuple[str, str], Tool] = {}
        for name, tool in tools.items():
            request = (tool.backend.name, tool.request.shape)
            twin = requests.setdefault(request, tool)
            if twin.action != tool.action:
                problem = f"makes the same request as tools.{twin.name}, under another action"
                self.mistake(("tools", name, "request"), problem)


def _entries(document: object, *path: str | int) -> object:
    for part in path:
        document = cast("Table", document).get(str(part)) if isinstance(document, dict) else None
    return document


def _copy(entry: object) -> object:
    if isinstance(entry, dict):
        return {name: _copy(member) for name, member in cast("Table", entry).items()}
    if isinstance(entry, list):
        return [_copy(member) for member in cast("list[object]", entry)]
    return entry


def _required(at: KeyPath, place: KeyPath) -> bool:
    """Whether what stands at `place` in the section `at` must be there."""
    model = SECTIONS.get(str(at[0]), BrokerSection)
    for part in place[:-1]:
        model = INNER.get((model, str(part)), model)
    declared = model.model_fields.get(str(place[-1]))
    return declared is not None and declared.is_required()


def _properties(document: Table) -> Table:
    found = document.get("properties")
    return cast("Table", found) if isinstance(found, dict) else {}


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


def _fields_at(model: type[Section], path: Iterable[str | int]) -> list[str]:
    """The known keys of the table at that path inside a section."""
    for part in path:
        model = INNER.get((model, str(part)), model)
    return list(model.model_fields)


def _nearest(name: str, known: Iterable[str]) -> str:
    if len(name) > 100:  # noqa: PLR2004 - the comparison is quadratic, and this is no typing mistake
        return ""
    found = get_close_matches(name, [each for each in known if len(each) <= 100], n=1, cutoff=0.6)  # noqa: PLR2004
    return found[0] if found else ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
