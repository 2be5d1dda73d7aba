"""What happened to a call, as API Activity (6003)."""

from collections.abc import Mapping

from broker.canonical import Json
from broker.logged import Logged, milliseconds
from broker.ocsf.objects import actor, api, delegation, endpoints, http, resources, source_members
from broker.ocsf.told import Told, names

_BY_METHOD = {"GET": 2, "HEAD": 2, "POST": 1, "PUT": 3, "PATCH": 3, "DELETE": 4}


def _call(logged: Logged, **told: Json) -> tuple[dict[str, Json], tuple[str, ...]]:
    """What every event of a call says of it, and which members of the record that takes up."""
    about = logged.record if logged.begin is None else {**logged.begin, **logged.record}
    more: dict[str, Json] = {
        "actor": actor(about, origin=logged.origin),
        "api": api(about),
        "http_request": http(about),
        "resources": resources(about),
        **endpoints(about),
        **told,
    }
    used = ("sub", "sub_iss", "rule", "catalog", "tool", "backend", "aud", "jti", "exp", "method", "location")
    return more, (*used, "client", *source_members(about))


def _operation(record: Mapping[str, Json]) -> int | str:
    if "tool" not in record:
        return "Other"
    method = str(record.get("method", "Call"))
    return _BY_METHOD.get(method, method)


def _what(record: Mapping[str, Json]) -> str:
    return str(record.get("tool") or record.get("token") or record.get("backend") or "a call")


def allowed(logged: Logged) -> Told:
    record = logged.record
    more, used = _call(logged)
    return Told(
        class_uid=6003,
        activity=_operation(record),
        status=0,
        action=1,
        message=f"{_what(record)} allowed: {names(record)}, by {record.get('rule', 'a rule')}",
        more=more,
        used=used,
    )


def ended(logged: Logged) -> Told:
    begin = logged.begin or {}
    outcome = logged.text("outcome")
    ended_ms, duration = milliseconds(logged.text("time")), logged.record.get("duration_ms")
    code = logged.record.get("status")
    more, used = _call(
        logged,
        duration=duration,
        end_time=ended_ms,
        start_time=milliseconds(str(begin["time"])) if "time" in begin else None,
        http_response={"code": code} if isinstance(code, int) else None,
        ai_agent={"uid": begin["agent"], "name": begin["agent"]} if "agent" in begin else None,
        delegation=None if "sid" not in begin else delegation(logged),
    )
    failed, cancelled = outcome == "failed", outcome == "cancelled"
    return Told(
        class_uid=6003,
        activity=_operation(begin),
        status=2 if failed else "Cancelled" if cancelled else 1,
        severity=2 if failed else 1,
        action=1,
        message=f"{_what(begin)} {outcome}: {names(begin)}",
        more=more,
        used=(*used, "duration_ms", "status"),
    )


def spent(logged: Logged) -> Told:
    more, used = _call(logged)
    return Told(
        class_uid=6003,
        activity="Spend",
        status=1,
        action=1,
        message=f"token of {_what(logged.record)} spent: {names(logged.record)}",
        more=more,
        used=used,
    )


def replayed(logged: Logged) -> Told:
    more, used = _call(logged, is_alert=True)
    return Told(
        class_uid=6003,
        activity="Replay",
        status=2,
        severity=4,
        action=2,
        message=f"token of {_what(logged.record)} was spent before, and was shown again",
        more=more,
        used=used,
    )


def txn_replaced(logged: Logged) -> Told:
    more, used = _call(logged)
    return Told(
        class_uid=6003,
        activity=3,
        status=1,
        action=1,
        message=f"transaction token replaced: {names(logged.record)}",
        more=more,
        used=used,
    )


def refused(logged: Logged) -> Told:
    record = logged.record
    more, used = _call(logged)
    return Told(
        class_uid=6003,
        activity=_operation(record),
        status=2,
        severity=3,
        action=2,
        message=f"{_what(record)} refused: {names(record)}: {logged.text('code')}: {logged.text('reason')}",
        more=more,
        used=used,
    )
