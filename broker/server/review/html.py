"""Elements of HTML and SVG that escape what they hold, by construction: there is no way to put markup in.

A text becomes a part of a page only as the child or the attribute of an element, and there it is escaped.
What moves a cursor, hides, or turns a line around is shown as `plain_text` shows it on a terminal.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import TypeAlias, Union

from broker.plain_text import plain

MOST = 300
"""Characters of one text, unless `said` gives it more: the download has all of it."""

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_EMPTY = frozenset({"br", "input", "link", "meta", "hr"})
_FORBIDDEN = frozenset({"style", "srcdoc", "srcset", "formaction", "background", "ping"})
_ADDRESSES = frozenset({"href", "src", "action"})
_OWN = re.compile(r"(/(?![/\\])|#|\?)[!-~]*")
"""An address on this very server, in ASCII: no page leads elsewhere, and none runs what it is led to."""

_AS_THEY_ARE = frozenset({"value", "content", *_ADDRESSES})
"""Attributes whose value is sent back: not shortened, and escaped for HTML alone."""


@dataclass(frozen=True, slots=True)
class Markup:
    """Something that is HTML already. Made here only."""

    html: str


Child: TypeAlias = Union[str, int, Markup, "Iterable[Child]", None]


def element(tag: str, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """An element. `class_` and `for_` are the attributes of that name; `_` stands for `-`.

    Attributes of None and False are left out, and of True have no value. Raises ValueError for an attribute
    that could run something or lead elsewhere: a mistake in the page, whoever asks for it.
    """
    if not _NAME.fullmatch(tag) or tag.lower() in {"style", "iframe", "object", "embed", "base"}:
        raise ValueError(f"no element of a page: {tag}")
    head = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    if tag == "script" and children:
        raise ValueError("a script is a file of its own")
    if tag in _EMPTY:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{''.join(_inside(children))}</{tag}>")


def said(text: object, most: int = MOST) -> Markup:
    """A text of others, cut after `most` characters."""
    return Markup(escape(plain(str(text), most)))


def together(*children: Child) -> Markup:
    """Several, without an element around them."""
    return Markup("".join(_inside(children)))


def document(*children: Child, lang: str = "en") -> bytes:
    """A whole page."""
    return ("<!doctype html>" + element("html", *children, lang=lang).html).encode()


def _inside(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            yield child.html
        elif isinstance(child, str | int):
            yield escape(plain(str(child), MOST))
        else:
            yield from _inside(child)


def _attribute(name: str, value: str | float | bool | None) -> str:  # noqa: FBT001 - as `element` is given it
    name = name.rstrip("_").replace("_", "-")
    if not _NAME.fullmatch(name) or name.lower().startswith("on") or name.lower() in _FORBIDDEN:
        raise ValueError(f"no attribute of a page: {name}")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = str(value)
    if name in _ADDRESSES and not _OWN.fullmatch(text):
        raise ValueError("an address that leads elsewhere")
    if name not in _AS_THEY_ARE:
        text = plain(text, MOST)
    return f' {name}="{escape(text)}"'
