"""Which sections and keys a tools.toml has, and what each of them may hold."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from broker.catalog import IssuerKind, Rate
from broker.chain import MAX_ACTORS
from broker.exporting import Form
from broker.places import DEFAULT_KEYS, DEFAULT_STORE
from broker.syslog_line import ENTERPRISE

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOWS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_UNITS_BYTES = {"KiB": 1024, "MiB": 1024**2}


def _duration(value: object) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('write a duration as "10s", "5m", "8h" or "30d"')
    return int(found[1]) * _UNITS_S[found[2]]


def _size(value: object) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})(KiB|MiB)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('write a size as "256KiB" or "1MiB"')
    return int(found[1]) * _UNITS_BYTES[found[2]]


def _rate(value: object) -> Rate:
    found = (
        re.fullmatch(r"([1-9][0-9]{0,6})/(second|minute|hour|day)", value) if isinstance(value, str) else None
    )
    if found is None:
        raise ValueError('write a rate as "5/hour": a number per second, minute, hour or day')
    return Rate(limit=int(found[1]), window_s=_WINDOWS_S[found[2]])


def _moment(value: object) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("write a moment with its offset, and without quotes: 2026-12-31T00:00:00Z")
    # Not by way of UTC: the first and the last day of the calendar have no such time.
    return int(value.timestamp())


def _one_line(text: str) -> str:
    if any(character < " " or character == "\x7f" for character in text):
        raise ValueError("must be one line, without control characters")
    return text


def _lines(text: str) -> str:
    _one_line(text.replace("\n", "").replace("\t", ""))
    return text


Duration = Annotated[int, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)]
Lines = Annotated[str, AfterValidator(_lines)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class BrokerSection(Section):
    issuer: Text
    listen: Text | None = None
    store: Text = DEFAULT_STORE
    keys: Text = DEFAULT_KEYS
    checkpoint_file: Text | None = None
    checkpoint_every: Duration = 60
    max_arguments: Size = 256 * 1024
    max_calls: Annotated[int, Field(ge=1, le=1024)] = 16
    max_actors: Annotated[int, Field(ge=1, le=MAX_ACTORS)] = 5
    trust_domain: Text | None = None
    tiles: bool = False


class RoleRuleSection(Section):
    claim: Text | None = None
    has: Text | None = None
    claims: dict[str, Text] | None = None
    role: Text


class IssuerSection(Section):
    kind: IssuerKind = "jwt"
    issuer: Text | None = None
    trust_domain: Text | None = None
    audience: Text | None = None
    jwks: Text | None = None
    ca_file: Text | None = None
    algorithms: list[Text] = ["ES256", "RS256", "PS256", "EdDSA", "Ed25519"]
    types: list[str] = ["", "jwt", "at+jwt"]
    roles: list[RoleRuleSection] = []
    once: bool = False
    session: Duration | None = None
    tenant: Text | None = None
    acr: dict[str, Text] = {}


class TenantSection(Section):
    title: Text | None = None


class BackendSection(Section):
    kind: Literal["http"] = "http"
    url: Text
    audience: Text
    ca_file: Text | None = None
    headers: dict[str, str] = {}
    timeout: Duration = 30
    max_response: Size = 1024 * 1024
    max_concurrent: Annotated[int, Field(ge=1, le=4096)] = 64
    single_use: Literal["kit", "introspect"] = "kit"
    dpop: bool = False
    unchecked_bodies: bool = False
    txn_token: bool = False


class ToolSection(Section):
    backend: Text
    action: Text
    request: Text
    title: Text | None = None
    description: Lines = ""
    input: dict[str, Any] | None = None
    output: dict[str, Any] | None = None
    acr: Text | None = None
    max_age: Duration | None = None
    ttl: Duration = 30
    timeout: Duration | None = None
    max_response: Size | None = None
    headers: dict[str, str] = {}
    keep: list[Text] = []
    tenant: Text | None = None


class GrantSection(Section):
    tools: Annotated[list[Text], Field(min_length=1)]
    arguments: dict[str, Any] | None = None
    rate: Annotated[Rate, BeforeValidator(_rate)] | None = None
    until: Annotated[int, BeforeValidator(_moment)] | None = None


class DelegateSection(Section):
    to: Annotated[list[Text], Field(min_length=1)]
    issuer: Text = "broker"
    tools: Annotated[list[Text], Field(min_length=1)]
    for_s: Annotated[Duration, Field(alias="for")]


class RoleSection(Section):
    grants: list[GrantSection] = []
    delegate: list[DelegateSection] = []
    tenant: Text | None = None


class ImpersonationSection(Section):
    issuer: Text
    sub: Text


class ClientSection(Section):
    auth: Literal["client_secret_basic", "private_key_jwt"]
    secret_sha256: Text | None = None
    jwks: Text | None = None
    algorithms: list[Text] = ["ES256", "RS256", "PS256", "EdDSA", "Ed25519"]
    backend: Text | None = None
    impersonate: list[ImpersonationSection] = []
    transaction_tokens: bool = False


class ExportSection(Section):
    kind: Literal["jsonl", "syslog", "webhook", "otlp"]
    format: Form = "record"
    private: bool = False
    batch: Annotated[int, Field(ge=1, le=1000)] = 200
    begin: Literal["first", "now"] = "first"
    folder: Text | None = None
    max_size: Size = 64 * 1024**2
    compress: bool = False
    address: Text | None = None
    enterprise: Text = ENTERPRISE
    max_message: Size = 8 * 1024
    url: Text | None = None
    body: Literal["lines", "array"] = "lines"
    secret_file: Text | None = None
    headers_file: Text | None = None
    ca_file: Text | None = None
    timeout: Duration = 30


class AnchorSection(Section):
    file: Text | None = None
    command: list[Text] | None = None
    syslog: Text | None = None
    url: Text | None = None
    witness: Text | None = None
    key: Text | None = None
    ca_file: Text | None = None
    authorization_file: Text | None = None


class WitnessedSection(Section):
    key: Text


class ReviewerRuleSection(Section):
    claim: Text | None = None
    has: Text | None = None
    claims: dict[str, Text] | None = None
    tenant: Text | None = None


class ReviewSection(Section):
    issuer: Text
    client_id: Text
    auth: Literal["client_secret_basic", "private_key_jwt", "none"] = "client_secret_basic"
    secret_file: Text | None = None
    key_file: Text | None = None
    scope: list[Text] = []
    ca_file: Text | None = None
    algorithms: list[Text] = ["ES256", "RS256", "PS256", "EdDSA", "Ed25519"]
    session: Duration = 8 * 3600
    reviewers: list[ReviewerRuleSection]


SECTIONS: Mapping[str, type[Section]] = {
    "issuers": IssuerSection,
    "backends": BackendSection,
    "tools": ToolSection,
    "roles": RoleSection,
    "clients": ClientSection,
    "tenants": TenantSection,
    "exports": ExportSection,
    "anchors": AnchorSection,
    "witnessed": WitnessedSection,
}
ALONE: Mapping[str, type[Section]] = {"broker": BrokerSection, "review": ReviewSection}
"""Sections without names in them."""

INNER: Mapping[tuple[type[Section], str], type[Section]] = {
    (IssuerSection, "roles"): RoleRuleSection,
    (RoleSection, "grants"): GrantSection,
    (ClientSection, "impersonate"): ImpersonationSection,
    (RoleSection, "delegate"): DelegateSection,
    (ReviewSection, "reviewers"): ReviewerRuleSection,
}


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """What each key of a section declares, by the name that it has in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}
