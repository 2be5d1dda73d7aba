"""Kubernetes service accounts: what a projected token says of the one that it is for."""

import re
from collections.abc import Mapping

from broker.canonical import Json
from broker.errors import Code, Rejected

CLAIM = "kubernetes.io"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?!.*\.\.)[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def service_account(payload: Mapping[str, Json]) -> str:
    """The `sub` of a service account, where everything in the token agrees about it.

    What must hold:

    1. The API server made it for a request of its own (TokenRequest): it says `kubernetes.io`, with a
       namespace and a service account. Legacy tokens of a Secret have flat claims, no end and no audience.
    2. Where it is bound to a pod, that has a name: the token ends with the pod there.
    3. `sub` is the same namespace and name.

    Raises:
        Rejected: `credential.claims`.
    """
    # 1. Projected.
    about = payload.get(CLAIM)
    if not isinstance(about, dict):
        raise Rejected(
            Code.CREDENTIAL_CLAIMS, f"`{CLAIM}` is missing: only projected service-account tokens are taken"
        )
    namespace, account = about.get("namespace"), _named(about, "serviceaccount")
    if not isinstance(namespace, str) or not _LABEL.fullmatch(namespace) or account is None:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"`{CLAIM}` names no namespace or no service account")
    # 2. Its pod.
    if "pod" in about and _named(about, "pod") is None:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"`{CLAIM}` has a pod without a name")
    # 3. One name.
    sub = f"system:serviceaccount:{namespace}:{account}"
    if payload.get("sub") != sub:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"`sub` is not the service account that `{CLAIM}` names")
    return sub


def _named(about: Mapping[str, Json], member: str) -> str | None:
    found = about.get(member)
    name = found.get("name") if isinstance(found, dict) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
