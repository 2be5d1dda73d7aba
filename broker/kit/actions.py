"""Which action an endpoint demands: known before the request runs, so that an undeclared one does not."""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from broker.errors import Usage
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
    return _Table(actions)


class _Table:
    def __init__(self, actions: Mapping[str, str]) -> None:
        self._rows: list[tuple[str, re.Pattern[str], str]] = []
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
            self._rows.append((template.method, _pattern(template), action))

    def __call__(self, method: str, path: str) -> str | None:
        for wanted, pattern, action in self._rows:
            if wanted == method and pattern.fullmatch(path):
                return action
        return None


def _pattern(template: RequestTemplate) -> re.Pattern[str]:
    # A field is one segment, as in Starlette and FastAPI, where a path converter is not asked for.
    literals = [re.escape(part) for part in template.parts[::2]]
    return re.compile("[^/]+".join(literals))


def _overlap(one: RequestTemplate, two: RequestTemplate) -> bool:
    if one.method != two.method:
        return False
    ours, theirs = _segments(one), _segments(two)
    return len(ours) == len(theirs) and all(
        "{}" in mine or "{}" in yours or mine == yours for mine, yours in zip(ours, theirs, strict=True)
    )


def _segments(template: RequestTemplate) -> list[str]:
    return "{}".join(template.parts[::2]).split("/")
