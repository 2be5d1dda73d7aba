"""Sessions and rules: Authentication (3002), Authorize Session (3003), Entity Management (3004)."""

from collections.abc import Mapping

from broker.canonical import Json
from broker.logged import Logged
from broker.ocsf.objects import (
    PRODUCT,
    actor,
    delegation,
    endpoints,
    policy,
    principal,
    session,
    source_members,
)
from broker.ocsf.told import OTHER, Told, names

# ── sessions ────────────────────────────────────────────────────────────────


def _authentication(logged: Logged) -> dict[str, Json]:
    return {
        "service": {"name": PRODUCT, "uid": logged.origin},
        "src_endpoint": endpoints(logged.record)["src_endpoint"],
    }


def session_opened(logged: Logged) -> Told:
    return Told(
        class_uid=3002,
        activity=1,
        status=1,
        action=1,
        message=f"session opened: {names(logged.record)}",
        more={
            "user": principal(logged.record),
            "session": session(logged),
            "is_remote": True,
            **_authentication(logged),
        },
        used=("sub", "issuer", "exp"),
    )


def session_revoked(logged: Logged) -> Told:
    count = logged.record.get("sessions", 1)
    return Told(
        class_uid=3002,
        activity=2,
        status=1,
        severity=2,
        message=f"session revoked: {names(logged.record)}; {count} ended",
        more={"user": principal(logged.record), "session": session(logged), **_authentication(logged)},
        used=("sub", "issuer"),
    )


def delegated(logged: Logged) -> Told:
    record = logged.record
    limit = record.get("limit")
    tools = limit.get("tools") if isinstance(limit, dict) else None
    child = str(record.get("child", ""))
    return Told(
        class_uid=3003,
        activity=1,
        status=1,
        action=1,
        message=f"{names(record)}: a part of its rights handed to {record.get('to', 'an agent')}",
        more={
            "actor": actor(record, origin=logged.origin),
            "user": {"name": record.get("to", "unknown"), "type_id": 4, "type": "Service"},
            "privileges": tools if isinstance(tools, list) else ["*"],
            "session": session(logged) | {"uid": child},
            "delegation": delegation(logged) | {"uid": child, "parent_uid": record.get("sid")},
        },
        used=("sub", "sub_iss", "to", "child", "exp", "rule", "catalog"),
    )


def credential_refused(logged: Logged) -> Told:
    return Told(
        class_uid=3002,
        activity=1,
        status=2,
        severity=3,
        action=2,
        message=f"refused before it was known who asks: {logged.text('code')}: {logged.text('reason')}",
        # The schema demands a user, and nobody is known.
        more={"user": {"name": "unknown", "type_id": 0, "type": "Unknown"}, **_authentication(logged)},
        used=("client", *source_members(logged.record)),
    )


# ── what the broker goes by ─────────────────────────────────────────────────

_ENTITIES: Mapping[str, tuple[int, str]] = {
    "actor": (2, "User"),
    "subject": (2, "User"),
    "tenant": (4, "Organization"),
}


def _named_entity(logged: Logged) -> dict[str, Json]:
    what = logged.text("what")
    type_id, type_name = _ENTITIES.get(what, (OTHER, what or "Other"))
    name = logged.text("name") or logged.text("iss") or "unknown"
    return {"type_id": type_id, "type": type_name, "name": name, "uid": name}


def revoked(logged: Logged) -> Told:
    return Told(
        class_uid=3004,
        activity=9,
        status=1,
        severity=2,
        message=f"{logged.text('what')} {logged.text('name')} revoked; "
        f"{logged.record.get('sessions', 0)} session(s) ended",
        more={"entity": _named_entity(logged)},
        used=("name", "jti"),
    )


def restored(logged: Logged) -> Told:
    return Told(
        class_uid=3004,
        activity=8,
        status=1,
        message=f"{logged.text('what')} {logged.text('name')} may open sessions again",
        more={"entity": _named_entity(logged)},
        used=("name", "jti"),
    )


def _rules(record: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "type_id": 5,
        "type": "Policy",
        "name": record.get("source", "tools.toml"),
        "uid": record.get("catalog", "unknown"),
        "policy": policy(record) | {"name": record.get("source", "tools.toml")},
    }


def catalog_loaded(logged: Logged) -> Told:
    return Told(
        class_uid=3004,
        activity=10,
        status=1,
        message=f"rules {logged.text('catalog')} hold from here on",
        more={"entity": _rules(logged.record)},
        used=("catalog", "source"),
    )


def rules_refused(logged: Logged) -> Told:
    return Told(
        class_uid=3004,
        activity=3,
        status=2,
        severity=2,
        action=2,
        message=f"changed rules refused: {logged.text('reason')}",
        more={"entity": _rules(logged.record)},
        used=("catalog",),
    )


# ── the log itself ──────────────────────────────────────────────────────────

_OF_THE_LOG = {
    "erased": (4, "what was kept of arguments was erased"),
    "archived": (5, "records were moved to an archive"),
    "reviewed": (2, "somebody looked at the log"),
}


def of_the_log(logged: Logged) -> Told:
    """What a person did with the log. Who, which records and why is in `unmapped`."""
    activity, message = _OF_THE_LOG[logged.event]
    return Told(class_uid=3004, activity=activity, status=1, message=message, more=_log(logged))


def unknown(logged: Logged) -> Told:
    """An event that this version knows no class of: all of it is in `unmapped`."""
    return Told(class_uid=3004, activity=logged.event, status=0, message=logged.event, more=_log(logged))


def _log(logged: Logged) -> dict[str, Json]:
    return {"entity": {"type_id": OTHER, "type": "Delegation log", "name": logged.origin}}
