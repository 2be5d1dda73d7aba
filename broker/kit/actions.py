"""Which action an endpoint demands: known before the request runs, so that an undeclared one does not."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from broker.errors import Usage
from broker.kit.endpoints import Endpoint
from broker.kit.verifier import Action, AnyAction
from broker.request import RequestTemplate, TemplateMistake

Actions: TypeAlias = "Mapping[str, str] | Callable[[str, str], str | None] | AnyAction"
"""`{"GET /orders/{order_id}": "orders:read"}`; or a function of method and path (percent-decoded, as a
framework routes by it); or `UNSAFE_ANY_ACTION`."""

ActionOf: TypeAlias = "Callable[[str, str], Action]"


def action_of(actions: Actions) -> ActionOf:
    """The lookup.

    Raises:
        Usage: a template is none, or two of them fit one request and demand different actions: which of
            them the framework would choose is not known here.
    """
    if isinstance(actions, AnyAction):
        return lambda _method, _path: actions
    if callable(actions):
        return actions
    return Table(actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    template: RequestTemplate
    pattern: re.Pattern[str]
    action: str
    others: list[re.Pattern[str]] = field(default_factory=list[re.Pattern[str]])


class Table:
    """Actions by method and path."""

    def __init__(self, actions: Mapping[str, str]) -> None:
        self._rows: list[_Row] = []
        seen: list[tuple[RequestTemplate, str, str]] = []
        for text, action in actions.items():
            try:
                template = RequestTemplate.parse(text)
            except TemplateMistake as mistake:
                raise Usage(f"actions: {text!r}: {mistake}") from mistake
            if not action or " " in action:
                raise Usage(f"actions: {text!r} names {action!r}, which is not one action")
            for other, other_text, other_action in seen:
                if other_action != action and _overlap(template, other):
                    raise Usage(
                        f"actions: {text!r} and {other_text!r} fit the same request and demand different "
                        "actions; give a function of method and path instead"
                    )
            seen.append((template, text, action))
            self._rows.append(_Row(template=template, pattern=_pattern(template), action=action))

    def __call__(self, method: str, path: str) -> str | None:
        for row in self._rows:
            if row.template.method == method and row.pattern.fullmatch(path):
                return None if any(other.fullmatch(path) for other in row.others) else row.action
        return None

    def leave_out(self, endpoints: Iterable[Endpoint], *, prefix: str) -> None:
        """Close what the app has an endpoint of its own for, that is not declared and that a template with
        a field would have opened: `GET /orders/{order_id}` says nothing of `/orders/export`."""
        declared = {row.template.shape for row in self._rows}
        segments = prefix.split("/")[1:]
        starts = ["".join(f"/{each}" for each in segments[known:]) for known in range(len(segments) + 1)]
        for endpoint in endpoints:
            # A framework that knows the prefix, or the first part of it, as its root path writes its routes
            # without that.
            for start in starts:
                if endpoint.path.startswith(f"{start}/"):
                    inside = replace(endpoint, path=endpoint.path.removeprefix(start))
                    for row in self._rows:
                        method = row.template.method
                        if inside.takes(method) and f"{method} {inside.shape}" not in declared:
                            self._leave_out(row, inside)

    def _leave_out(self, row: _Row, endpoint: Endpoint) -> None:
        for ours, theirs in zip(_segments(row.template), endpoint.shape.split("/"), strict=False):
            if ours != theirs and "{}" in ours and _fits(ours, theirs):
                row.others.append(endpoint.pattern())
                return


def _pattern(template: RequestTemplate) -> re.Pattern[str]:
    # A field is one segment, as in Starlette and FastAPI, where a path converter is not asked for.
    literals = [re.escape(part) for part in template.parts[::2]]
    return re.compile("[^/]+".join(literals))


def _fits(ours: str, theirs: str) -> bool:
    """Whether all that `theirs` may be is something that `ours` may be."""
    pattern = "[^/]+".join(map(re.escape, ours.split("{}")))
    return re.fullmatch(pattern, theirs.replace("{}", "\0")) is not None


def _overlap(one: RequestTemplate, two: RequestTemplate) -> bool:
    if one.method != two.method:
        return False
    ours, theirs = _segments(one), _segments(two)
    return len(ours) == len(theirs) and all(
        "{}" in mine or "{}" in yours or mine == yours for mine, yours in zip(ours, theirs, strict=True)
    )


def _segments(template: RequestTemplate) -> list[str]:
    return "{}".join(template.parts[::2]).split("/")
