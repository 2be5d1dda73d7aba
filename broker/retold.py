"""A record in words, for people. What agents named stands there as `plain_text` leaves it."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from broker.plain_text import plain

_OF_NAMES = ("revoked", "restored")


def why(body: Mapping[str, Any]) -> str:
    """Which rule or reason decided, in a few words."""
    if body["event"] in _OF_NAMES:
        return _named(body)
    if body["event"] == "session.opened" and "parent" in body:
        return _part_of(body)
    if body["event"] == "erased":
        return f"of {_count(body)} record(s), by {body.get('by')}: {body.get('reason')}"
    if body["event"] == "archived":
        return f"records {body.get('first')} to before {body.get('size')}, to {body.get('file')}"
    if body["event"] == "reviewed":
        return _looked(body)
    return str(body.get("code") or body.get("rule") or body.get("reason") or "")


def how_to_go_on(body: Mapping[str, Any]) -> str:
    """What `broker log show` takes. A refusal that was no call yet has none: then the reason itself."""
    if "txn" not in body and "code" in body and "reason" in body:
        return f"({body['reason']})"
    return str(body.get("txn", ""))


def chain(body: Mapping[str, Any]) -> str:
    """For whom, through whom: `alice ← planner ← bot`."""
    if "sub" not in body:
        return "unknown"
    return " ← ".join(plain(name, 40) for name in (str(body["sub"]), *reversed(_actors(body))))


def hops(body: Mapping[str, Any]) -> list[str]:
    """The actors with their issuers, the current one first."""
    names: list[str] = []
    act = body.get("act")
    while isinstance(act, dict):
        hop = cast("Mapping[str, Any]", act)
        names.append(f"{plain(str(hop.get('sub')))}  ({plain(str(hop.get('iss')))})")
        act = hop.get("act")
    return names


def happened(body: Mapping[str, Any]) -> str:
    """One event of a call, in a sentence."""

    def said(name: str) -> str:
        return plain(str(body.get(name, "")))

    match body["event"]:
        case "allowed":
            return f"allowed by {said('rule')}; token {said('jti')} for {said('action')} at {said('aud')}"
        case "refused":
            return f"refused{_handing_on(body)}: {said('reason')} [{said('code')}]"
        case "ended":
            detail = f", HTTP {said('status')}" if "status" in body else ""
            code = f" [{said('code')}]" if "code" in body else ""
            return f"{said('outcome')} after {said('duration_ms')} ms{detail}{code}"
        case "spent":
            return f"token {said('jti')} spent at {said('aud')}"
        case "replayed":
            return f"REPLAY refused at {said('aud')}: token {said('jti')} was spent before"
        case _:
            return _of_sessions(body)


def _handing_on(body: Mapping[str, Any]) -> str:
    """To whom it should have gone, and by which rule. The reason of a refused call names its own."""
    if "to" not in body:
        return ""
    nearest = f" by {plain(str(body['rule']))}" if "rule" in body else ""
    return f" to hand on to {plain(str(body['to']))}{nearest}"


def _of_sessions(body: Mapping[str, Any]) -> str:
    def said(name: str) -> str:
        return plain(str(body.get(name, "")))

    match body["event"]:
        case "delegated":
            return f"delegated to {said('to')} by {said('rule')}, as session {said('child')}"
        case "session.opened":
            part = f", {plain(_part_of(body))}" if "parent" in body else ""
            return f"session {said('sid')} opened{part}"
        case "session.revoked":
            return f"session {said('sid')} revoked, {said('sessions')} in all ended"
        case "txn.replaced":
            return (
                f"transaction token for {said('action')} taken by {said('client')}, in the place of another"
            )
        case "erased":
            return f"the private parts of {_count(body)} record(s) erased by {said('by')}: {said('reason')}"
        case "archived":
            return f"records {said('first')} to before {said('size')} moved to {said('file')}"
        case "reviewed":
            return plain(_looked(body), 600)
        case "revoked" | "restored" as event:
            return f"{event} {plain(_named(body))}"
        case other:
            return plain(str(other))


def _count(body: Mapping[str, Any]) -> int:
    indexes = body.get("indexes")
    return len(cast("list[object]", indexes)) if isinstance(indexes, list) else 0


def _named(body: Mapping[str, Any]) -> str:
    """What was revoked, or may open sessions again."""
    iss = f" of {body['iss']}" if "iss" in body else ""
    ended = f", {body['sessions']} sessions ended" if body.get("sessions") else ""
    return f"{body.get('what')} {body.get('name')}{iss}{ended}"


def _looked(body: Mapping[str, Any]) -> str:
    """Who looked at what."""
    of = f" {body['of']}" if "of" in body else ""
    asked = body.get("asked")
    by = "".join(
        f", {name} {value}"
        for name, value in cast("Mapping[str, Any]", asked if isinstance(asked, dict) else {}).items()
    )
    return f"{body.get('reviewer')} looked at {body.get('view')}{of}{by}"


def _part_of(body: Mapping[str, Any]) -> str:
    """What a session is a part of, and what that leaves of it."""
    limit = body.get("limit")
    tools = cast("Mapping[str, Any]", limit if isinstance(limit, dict) else {}).get("tools")
    listed = cast("Iterable[object]", tools if isinstance(tools, list) else ())
    names = ", ".join(str(each) for each in listed)
    return f"part of {body['parent']}{f', for {names}' if names else ''}"


def _actors(body: Mapping[str, Any]) -> list[str]:
    """The actors of a record, the current one first."""
    names: list[str] = []
    act = body.get("act")
    while isinstance(act, dict):
        hop = cast("Mapping[str, Any]", act)
        names.append(str(hop.get("sub")))
        act = hop.get("act")
    return names
