"""The objects of an OCSF event: who, through what, where to (OCSF 1.9.0, `objects/`)."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from broker.canonical import Json
from broker.logged import Logged, milliseconds

VERSION = "1.9.0"
PRODUCT = "tool-token-broker"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


def metadata(logged: Logged, *, version: str) -> Json:
    """`metadata`: the log's name and the record's place in it; `uid` is the same at each delivery."""
    return _present(
        version=VERSION,
        product={"name": PRODUCT, "vendor_name": PRODUCT, "version": version},
        profiles=["ai_operation", "security_control"],
        log_name=logged.origin,
        uid=logged.uid,
        sequence=logged.index,
        event_code=logged.event,
        original_time=logged.text("time"),
        correlation_uid=logged.record.get("txn"),
        tenant_uid=logged.record.get("tenant"),
    )


def principal(record: Mapping[str, Json]) -> dict[str, Json]:
    """`user`: the subject, as its issuer names it. Whether it is a person, the log does not know."""
    name = record.get("sub", "unknown")
    return {"name": name, "uid": name, "type_id": 0, "type": "Unknown"}


def actor(record: Mapping[str, Json], *, origin: str) -> dict[str, Json]:
    """`actor`: the subject, its issuer, the agent that acts for it, and the rule that decided."""
    rule = record.get("rule")
    allowed = "code" not in record
    told = _present(
        app_name=record.get("agent", record.get("client")),
        session=None if "sid" not in record else {"uid": record["sid"], "issuer": origin},
        user=principal(record) if "sub" in record else None,
        idp=None
        if "sub_iss" not in record
        else {"name": record["sub_iss"], "uid": record["sub_iss"], "issuer": record["sub_iss"]},
        authorizations=None
        if rule is None
        else [{"decision": "Allowed" if allowed else "Denied", "policy": policy(record) | {"name": rule}}],
    )
    # One of its members must be there.
    return told or {"app_name": "unknown"}


def policy(record: Mapping[str, Json]) -> dict[str, Json]:
    """`policy`: the rules that held, by digest."""
    catalog = record.get("catalog", "unknown")
    return {"uid": catalog, "version": catalog}


def api(record: Mapping[str, Json]) -> dict[str, Json]:
    """`api`: the tool, at which backend, and the token that it was called with."""
    token = record.get("jti")
    exp = record.get("exp")
    txn = record.get("txn")
    code = record.get("status")
    return _present(
        operation=record.get("tool") or record.get("token") or record.get("via") or "unknown",
        service=_service(record),
        request=None if txn is None else {"uid": txn},
        token=None
        if token is None
        else _present(uid=token, expiration_time=exp * 1000 if isinstance(exp, int) else None),
        response=_present(
            code=code if isinstance(code, int) else None,
            error=record.get("code"),
            error_message=record.get("reason"),
        )
        or None,
    )


def _service(record: Mapping[str, Json]) -> Json:
    return _present(name=record.get("backend"), uid=record.get("aud")) or None


def resources(record: Mapping[str, Json]) -> Json:
    """`resources`: the backend, as the target."""
    told = _present(name=record.get("backend"), uid=record.get("aud"))
    return [told | {"type": "backend", "role_id": 1, "role": "Target"}] if told else None


def http(record: Mapping[str, Json]) -> Json:
    """`http_request`: the one request that the token is good for."""
    method, location = record.get("method"), record.get("location")
    if not isinstance(method, str) or not isinstance(location, str):
        return None
    told: dict[str, Json] = {"url": {"url_string": location, "path": urlsplit(location).path or "/"}}
    if method in _METHODS:
        told["http_method"] = method
    return told


def endpoints(record: Mapping[str, Json]) -> dict[str, Json]:
    """`src_endpoint`, with its address where that was written, and `dst_endpoint`."""
    peer = record.get("peer")
    who = record.get("client") or record.get("agent") or "unknown"
    source: dict[str, Json] = {"name": who}
    if source_members(record):
        source["ip"] = peer
    backend = record.get("backend")
    return {"src_endpoint": source, "dst_endpoint": None if backend is None else {"svc_name": backend}}


def source_members(record: Mapping[str, Json]) -> tuple[str, ...]:
    """Which members of the record are in `src_endpoint`. A peer without an address is not."""
    peer = record.get("peer")
    return ("peer",) if isinstance(peer, str) and _is_address(peer) else ()


def session(logged: Logged) -> dict[str, Json]:
    """`session`: the broker's record of an accepted credential, or the part of one that is handed on."""
    exp = logged.record.get("exp")
    return _present(
        uid=logged.record.get("sid"),
        issuer=logged.record.get("issuer"),
        created_time=milliseconds(logged.text("time")) if logged.event == "session.opened" else None,
        expiration_time=exp * 1000 if isinstance(exp, int) else None,
    )


def delegation(logged: Logged) -> dict[str, Json]:
    """`delegation`: the session under whose authority it was done. Its members are those of 1.9.0.

    `parent_uid` and `created_time` are in the events that know them: of all events of one delegation,
    which share its `uid`, the one that opened it.
    """
    about = logged.record if logged.begin is None else logged.begin
    opened = logged.event == "session.opened"
    return _present(
        uid=about.get("sid"),
        issuer_uid=logged.origin,
        parent_uid=about.get("parent") if opened else None,
        created_time=milliseconds(logged.text("time"))
        if logged.event in {"session.opened", "delegated"}
        else None,
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _present(**members: Json) -> dict[str, Json]:
    return {name: value for name, value in members.items() if value is not None}
