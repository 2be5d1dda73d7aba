"""What a tools.toml says of assurance: an issuer's table of `acr` values, and what a tool asks for."""

import re
from collections.abc import Mapping

from broker.assurance import ASSURANCE
from broker.toml_lines import KeyPath
from broker.tools_mistakes import Mistakes

MAX_AGE_S = 30 * 24 * 3600
MAX_ACR_VALUES = 64

_VALUE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


def acr_table(mistakes: Mistakes, at: KeyPath, table: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """`acr = { "urn:example:mfa" = "aal2" }` of an issuer."""
    if len(table) > MAX_ACR_VALUES:
        mistakes.note(at, f"must have at most {MAX_ACR_VALUES} values")
    for value, level in table.items():
        if not _VALUE.fullmatch(value):
            # RFC 9470 §3: a challenge lists them between quotation marks, separated by spaces.
            mistakes.note((*at, value), "a value has no spaces, quotation marks or backslashes")
        if level not in ASSURANCE:
            mistakes.note((*at, value), _unknown(level), (level, ASSURANCE))
    return tuple(table.items())


def require_assurance(mistakes: Mistakes, at: KeyPath, *, acr: str | None, max_age_s: int | None) -> None:
    """`acr` and `max_age` of a tool."""
    if acr is not None and acr not in ASSURANCE:
        mistakes.note((*at, "acr"), _unknown(acr), (acr, ASSURANCE))
    if max_age_s is not None and not 1 <= max_age_s <= MAX_AGE_S:
        mistakes.note((*at, "max_age"), "must be between 1s and 30d")


def _unknown(level: str) -> str:
    return f"{level!r} is not known; known are {', '.join(ASSURANCE)}"
