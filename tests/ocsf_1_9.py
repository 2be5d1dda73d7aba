"""The JSON Schema of an OCSF class, as a package carries it whole for 1.8.0, with what 1.9.0 added to it.

No package carries 1.9.0 whole. Of its additions we use three: the profile `ai_operation` on every class of
IAM, and the objects `ai_agent` and `delegation` in it. These are written out below, from
`profiles/ai_operation.json`, `objects/ai_agent.json` and `objects/delegation.json` of the release.
"""

import copy
from functools import cache
from importlib import import_module
from typing import Any

from jsonschema import Draft202012Validator

ocsf: Any = import_module("ocsf_json_schema")  # has no types

CLASSES = {
    3002: "authentication",
    3003: "authorize_session",
    3004: "entity_management",
    6003: "api_activity",
}


def _text(requirement: str = "optional") -> dict[str, Any]:
    return {"type": "string_t", "requirement": requirement}


def _time(requirement: str = "optional") -> dict[str, Any]:
    return {"type": "timestamp_t", "requirement": requirement}


NEW_OBJECTS: dict[str, Any] = {
    "delegation": {
        "caption": "Delegation",
        "attributes": {
            "uid": _text("required"),
            "parent_uid": _text(),
            "issuer_uid": _text("recommended"),
            "created_time": _time("recommended"),
        },
    },
    "ai_agent": {
        "caption": "AI Agent",
        "attributes": {
            "uid": _text("required"),
            "instance_uid": _text("recommended"),
            "name": _text("recommended"),
            "version": _text("recommended"),
            "type": _text(),
            "type_id": {
                "type": "integer_t",
                "requirement": "recommended",
                "enum": {number: {} for number in ("0", "1", "2", "3", "4", "99")},
            },
        },
    },
}
NEW_ATTRIBUTES: dict[str, Any] = {
    name: {
        "type": "object_t",
        "object_type": name,
        "requirement": "optional",
        "profiles": ["ai_operation"],
    }
    for name in NEW_OBJECTS
}


@cache
def validator(class_uid: int) -> Any:
    """Checks required attributes, types, enumerations, formats, constraints, and that there are no others."""
    compiled = copy.deepcopy(ocsf.get_ocsf_schema(version="1.8.0"))
    compiled["objects"].update(NEW_OBJECTS)
    for name in CLASSES.values():
        compiled["classes"][name]["attributes"].update(NEW_ATTRIBUTES)
    schema = ocsf.OcsfJsonSchemaEmbedded(compiled).get_class_schema(
        CLASSES[class_uid], profiles=["ai_operation", "security_control"]
    )
    return Draft202012Validator(schema)


def problems(event: dict[str, Any]) -> list[str]:
    """What the schema says against an event."""
    return [
        f"{error.json_path}: {error.message}" for error in validator(event["class_uid"]).iter_errors(event)
    ]
