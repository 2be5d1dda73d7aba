"""tools.toml → catalog: every mistake in it at once, each with its line, or none at all."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from broker.anchoring import DeclaredAnchor, FileAnchor
from broker.canonical import digest
from broker.catalog import Catalog
from broker.errors import CatalogInvalid, Usage
from broker.places import unreadable
from broker.toml_document import NotToml, Table, entry_at, read_toml
from broker.toml_lines import KeyPath
from broker.tools_across import Across
from broker.tools_anchors import RESERVED, AnchorValues
from broker.tools_clients import ClientValues
from broker.tools_exports import ExportValues
from broker.tools_grammar import (
    ALONE,
    INNER,
    SECTIONS,
    AnchorSection,
    BackendSection,
    BrokerSection,
    ClientSection,
    ExportSection,
    IssuerSection,
    ReviewSection,
    RoleSection,
    Section,
    TenantSection,
    ToolSection,
    WitnessedSection,
    keys_of,
)
from broker.tools_issuers import IssuerValues
from broker.tools_mistakes import Mistakes
from broker.tools_review import ReviewValues
from broker.tools_values import Values

T = TypeVar("T")

MAX_BYTES = 4 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_STAND_INS: Mapping[str, object] = {
    **dict.fromkeys(("issuer", "audience", "jwks", "url"), "https://stand.in"),
    **dict.fromkeys(("claim", "has", "role", "backend", "action"), "x"),
    "request": "GET /",
    "tools": ["*"],
    "auth": "client_secret_basic",
    "kind": "jsonl",
    "sub": "x",
    "client_id": "x",
    "reviewers": [],
    "to": ["*"],
    "for": "1m",
}
"""What is required, so that the rest of a section can be judged without it."""
_STAND_IN_MEMBERS: Mapping[str, object] = {
    "grants": {"tools": ["*"]},
    "delegate": {"to": ["*"], "tools": ["*"], "for": "1m"},
    "roles": {"claim": "x", "has": "x", "role": "x"},
    **dict.fromkeys(("tools", "to"), "*"),
    "keep": "x",
    "algorithms": "ES256",
    "types": "",
    "impersonate": {"issuer": "broker", "sub": "x"},
    "reviewers": {"claim": "x", "has": "x"},
    "scope": "x",
}


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
        document, lines = read_toml(text)
    except NotToml as mistake:
        raise CatalogInvalid(source, (mistake.mistake,)) from None
    mistakes = Mistakes(lines)
    catalog = _Reader(document, mistakes, folder).catalog(source, digest(text))
    if mistakes or catalog is None:
        raise CatalogInvalid(source, mistakes.in_order())
    return catalog


class _Reader:
    """Reads a document section by section: each part is judged even where another is wrong."""

    def __init__(self, document: Table, mistakes: Mistakes, folder: Path) -> None:
        self._document = document
        self._mistakes = mistakes
        self._across = Across(document, mistakes)
        self._values = Values(self._across, mistakes, folder)
        self._clients = ClientValues(self._across, mistakes, folder)
        self._issuers = IssuerValues(self._across, mistakes, folder)
        self._exports = ExportValues(self._across, mistakes, folder)
        self._anchors = AnchorValues(self._across, mistakes, folder)
        self._review = ReviewValues(self._across, mistakes, folder)

    def catalog(self, source: str, file_digest: str) -> Catalog | None:
        self._require_sections()
        settings = self._alone("broker", BrokerSection, self._values.broker)
        review = self._alone("review", ReviewSection, self._review.review)
        tenants = self._section("tenants", TenantSection, self._issuers.tenant)
        issuers = self._section("issuers", IssuerSection, self._issuers.issuer)
        backends = self._section("backends", BackendSection, self._values.backend)
        tools = self._section("tools", ToolSection, lambda at, model: self._values.tool(at, model, backends))
        roles = self._section("roles", RoleSection, self._values.role)
        clients = self._section("clients", ClientSection, self._clients.client)
        exports = self._section("exports", ExportSection, self._exports.export)
        anchors: dict[str, DeclaredAnchor] = self._section("anchors", AnchorSection, self._anchors.anchor)
        witnessed = self._section("witnessed", WitnessedSection, self._anchors.witnessed)
        if settings is not None and settings.checkpoint_file is not None:
            # The older way to write one that is a file.
            anchors[RESERVED] = FileAnchor(name=RESERVED, path=settings.checkpoint_file)
        self._across.require_distinct(settings, issuers, backends)
        self._across.require_distinct_tools(tools)
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
            clients=clients,
            tenants=tenants,
            exports=exports,
            anchors=anchors,
            witnessed=witnessed,
            review=review,
        )

    def _require_sections(self) -> None:
        known = [*ALONE, *SECTIONS]
        for name, table in self._document.items():
            if name not in known:
                problem = f"unknown section; the known ones are {', '.join(known)}"
                self._mistakes.note((name,), problem, (name, known))
            elif not isinstance(table, dict):
                self._mistakes.note((name,), f"must be a table: write [{name}] or [{name}.NAME]")
        if "broker" not in self._document:
            self._mistakes.note((), "the section [broker] is missing; it needs at least `issuer`")

    def _alone(
        self, name: str, model: type[Section], build: "Callable[[KeyPath, Any], T | None]"
    ) -> T | None:
        declared = cast("object", self._document.get(name))
        if not isinstance(declared, dict):
            return None
        return self._read(model, (name,), cast("object", declared), build)

    def _section(
        self, section: str, model: type[Section], build: "Callable[[KeyPath, Any], T | None]"
    ) -> dict[str, T]:
        built: dict[str, T] = {}
        table = self._document.get(section, {})
        for name, entry in cast("Table", table if isinstance(table, dict) else {}).items():
            at = (section, name)
            if not _NAME.fullmatch(name):
                self._mistakes.note(at, "a name has 1 to 64 letters, digits, `_`, `-` or `.`")
            made = self._read(model, at, entry, build)
            if made is not None:
                built[name] = made
        return built

    def _read(
        self, model: type[Section], at: KeyPath, entry: object, build: "Callable[[KeyPath, Any], T | None]"
    ) -> T | None:
        before = len(self._mistakes)
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
        return made if len(self._mistakes) == before else None

    def _repaired(self, at: KeyPath, entry: object, errors: list[ErrorDetails]) -> object:
        copied = _copy(entry)
        for error in errors:
            place = tuple(part for part in error["loc"] if part != "[key]")
            if not place:
                return None
            self._mistakes.silence((*at, *place))
            parent = entry_at(copied, *place[:-1])
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
                self._mistakes.note(where, f"unknown key; known are {', '.join(known)}", (name, known))
            case "missing":
                self._mistakes.note(where, "is required")
            case "model_type" | "dict_type":
                self._mistakes.note(where, "must be a table")
            case "list_type":
                self._mistakes.note(where, "must be an array")
            case "string_type" | "int_type":
                self._mistakes.note(where, f"must be {message.removeprefix('Input should be ')}")
            case "value_error":
                self._mistakes.note(where, message.removeprefix("Value error, "))
            case _:
                self._mistakes.note(where, message[:1].lower() + message[1:])


def _copy(entry: object) -> object:
    if isinstance(entry, dict):
        return {name: _copy(member) for name, member in cast("Table", entry).items()}
    if isinstance(entry, list):
        return [_copy(member) for member in cast("list[object]", entry)]
    return entry


def _required(at: KeyPath, place: KeyPath) -> bool:
    """Whether what stands at `place` in the section `at` must be there."""
    model = {**ALONE, **SECTIONS}[str(at[0])]
    for part in place[:-1]:
        model = INNER.get((model, str(part)), model)
    declared = keys_of(model).get(str(place[-1]))
    return declared is not None and declared.is_required()


def _fields_at(model: type[Section], path: Iterable[str | int]) -> list[str]:
    """The known keys of the table at that path inside a section."""
    for part in path:
        model = INNER.get((model, str(part)), model)
    return list(keys_of(model))
