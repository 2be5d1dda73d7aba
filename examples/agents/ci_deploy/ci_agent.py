"""A CI job that deploys one version: no stored secret, and no right that outlives it.

    python ci_agent.py CI_URL BROKER_ORIGIN REF VERSION

1. The CI system signs a token that says which job this is.
2. The broker opens a session for it, once (RFC 7523), and exchanges that for one that may deploy this
   version, and nothing else, for two minutes (RFC 8693).
3. That session is exchanged for a token that is good for one request, which the job sends itself.
"""

import json
import sys
from typing import Any

import httpx2

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"


class Refused(Exception):
    """The broker said no, and why."""


def granted(http: httpx2.Client, origin: str, form: dict[str, str]) -> dict[str, Any]:
    answer = http.post(f"{origin}/token", data=form)
    if not answer.is_success:
        raise Refused(answer.json()["error_description"])
    return dict(answer.json())


def exchange(
    http: httpx2.Client, origin: str, token: str, audience: str, detail: dict[str, Any]
) -> dict[str, Any]:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": JWT,
        "audience": audience,
        "authorization_details": json.dumps([detail]),
    }
    return granted(http, origin, form)


def deploy(ci: str, origin: str, ref: str, version: str) -> dict[str, Any]:
    with httpx2.Client(timeout=30) as http:
        # 1. Who this job is.
        token = http.get(f"{ci}/job-token", params={"ref": ref}).json()["value"]
        # 2. One narrow right.
        only = {"deploy": {"properties": {"version": {"const": version}}}}
        part = {"type": "delegation", "tools": ["deploy"], "arguments": only, "expires_in": 120}
        job = granted(http, origin, {"grant_type": BEARER, "assertion": token})["access_token"]
        session = exchange(http, origin, job, origin, part)["access_token"]
        # 3. One request.
        call = {
            "type": "tool_call",
            "identifier": "deploy",
            "arguments": {"service": "shop", "version": version},
        }
        issued = exchange(http, origin, session, "https://deploys.example.com", call)
        request = issued["request"]
        answer = http.request(
            request["method"],
            request["url"],
            content=request["body"],
            headers={**request["headers"], "authorization": f"Bearer {issued['access_token']}"},
        )
        return {"status": answer.status_code, "said": answer.json()}


def main(ci: str, origin: str, ref: str, version: str) -> None:
    try:
        done = deploy(ci, origin, ref, version)
    except Refused as refused:
        done = {"refused": str(refused)}
    print(json.dumps({"ref": ref, "version": version, **done}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
