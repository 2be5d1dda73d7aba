"""A record as an event of the Open Cybersecurity Schema Framework, version 1.9.0.

Which class an event becomes (https://schema.ocsf.io):

==============================================  =====================================================
`allowed`, `ended`, `spent`, `replayed`,        API Activity (6003)
`refused` of a call, `txn.replaced`
`refused` before it was known who asks,         Authentication (3002)
`session.opened`, `session.revoked`
`delegated`                                     Authorize Session (3003)
`revoked`, `restored`, `catalog.loaded`,        Entity Management (3004)
`erased`, `archived`, `reviewed`,
`refused` rules
==============================================  =====================================================

The profile `ai_operation` brings `ai_agent`, who calls, and `delegation`: the session whose rights are
used, with the session that it is a part of as its parent. What has no place in the schema is in
`unmapped`, under the name that it has in the log.
"""

from collections.abc import Callable, Mapping

from broker.canonical import Json
from broker.logged import Logged, milliseconds
from broker.ocsf import calls, iam
from broker.ocsf.objects import delegation, metadata
from broker.ocsf.told import OTHER, Told

_CLASSES = {
    3002: ("Authentication", 3, "Identity & Access Management"),
    3003: ("Authorize Session", 3, "Identity & Access Management"),
    3004: ("Entity Management", 3, "Identity & Access Management"),
    6003: ("API Activity", 6, "Application Activity"),
}
_ACTIVITIES = {
    3002: {1: "Logon", 2: "Logoff"},
    3003: {1: "Assign Privileges"},
    3004: {2: "Read", 3: "Update", 4: "Delete", 5: "Move", 8: "Enable", 9: "Disable", 10: "Activate"},
    6003: {1: "Create", 2: "Read", 3: "Update", 4: "Delete"},
}
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High"}
_STATUSES = {0: "Unknown", 1: "Success", 2: "Failure"}
_ACTIONS = {1: ("Allowed", 1, "Allowed"), 2: ("Denied", 2, "Blocked")}


def ocsf_event(logged: Logged, *, version: str) -> dict[str, Json]:
    """The event. `version` is the broker's own."""
    told = _TELL.get(logged.event, iam.unknown)(logged)
    record = logged.record
    class_name, category_uid, category_name = _CLASSES[told.class_uid]
    activity_id, activity = _named(told.activity, _ACTIVITIES[told.class_uid])
    status_id, status = _named(told.status, _STATUSES)
    event: dict[str, Json] = {
        "category_uid": category_uid,
        "category_name": category_name,
        "class_uid": told.class_uid,
        "class_name": class_name,
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": told.class_uid * 100 + activity_id,
        "type_name": f"{class_name}: {activity if activity_id != OTHER else 'Other'}",
        "time": milliseconds(logged.text("time")),
        "severity_id": told.severity,
        "severity": _SEVERITIES[told.severity],
        "status_id": status_id,
        "status": status,
        "message": told.message,
        "metadata": metadata(logged, version=version),
    }
    used = {"v", "event", "time", "txn", "tenant", *told.used}
    if "code" in record:
        event |= {"status_code": record["code"], "status_detail": record.get("reason", record["code"])}
        used |= {"code", "reason"}
    if told.action is not None:
        name, disposition_id, disposition = _ACTIONS[told.action]
        event |= {
            "action_id": told.action,
            "action": name,
            "disposition_id": disposition_id,
            "disposition": disposition,
        }
    if "agent" in record:
        event["ai_agent"] = {"uid": record["agent"], "name": record["agent"]}
        used.add("agent")
    if "sid" in record:
        event["delegation"] = delegation(logged)
        used |= {"sid", "parent"} if logged.event == "session.opened" else {"sid"}
    event |= {name: value for name, value in told.more.items() if value is not None}
    unmapped: dict[str, Json] = {name: value for name, value in record.items() if name not in used}
    if logged.private is not None:
        unmapped["private"] = dict(logged.private)
    if unmapped:
        event["unmapped"] = unmapped
    return event


def _named(told: int | str, names: Mapping[int, str]) -> tuple[int, str]:
    """An id of an enumeration with its caption, or `Other` with the source's own word for it."""
    return (OTHER, told) if isinstance(told, str) else (told, names[told])


def _refused(logged: Logged) -> Told:
    if logged.text("code") == "catalog.invalid":
        return iam.rules_refused(logged)
    if any(member in logged.record for member in ("sub", "tool", "backend")):
        return calls.refused(logged)
    return iam.credential_refused(logged)


_TELL: Mapping[str, Callable[[Logged], Told]] = {
    "allowed": calls.allowed,
    "refused": _refused,
    "ended": calls.ended,
    "spent": calls.spent,
    "replayed": calls.replayed,
    "session.opened": iam.session_opened,
    "session.revoked": iam.session_revoked,
    "delegated": iam.delegated,
    "revoked": iam.revoked,
    "restored": iam.restored,
    "txn.replaced": calls.txn_replaced,
    "catalog.loaded": iam.catalog_loaded,
    "erased": iam.of_the_log,
    "archived": iam.of_the_log,
    "reviewed": iam.of_the_log,
}
