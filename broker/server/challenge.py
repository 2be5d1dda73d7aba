"""The challenge of a call whose subject is not assured enough: RFC 9470, as an answer to an MCP message."""

from dataclasses import dataclass
from typing import Any

from mcp_types import INVALID_REQUEST
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from broker.assurance import StepUp
from broker.errors import Code

ERROR = "insufficient_user_authentication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A call that was refused, and stands in the log as `txn`, until its subject has signed in again."""

    step_up: StepUp
    txn: str

    def meta(self) -> dict[str, Any]:
        """The same for a client that gets no challenge: members of the result's `_meta`."""
        return {f"broker/{name}": value for name, value in self._asked().items()}

    def answer(self, *, scheme: str, metadata_url: str, request_id: str | int | None) -> Response:
        """401, with one challenge (RFC 9470 §3). The body is a JSON-RPC error that says the same: a client
        that does not know what to do with a challenge shows its sentence to the model.

        Args:
            scheme: `Bearer`, or `DPoP` where the session is bound to a key (RFC 9449 §7.1).
        """
        asked = self._asked()
        members = {"error": ERROR, "error_description": self.step_up.why, **asked}
        members["resource_metadata"] = metadata_url
        challenge = ", ".join(f'{name}="{_quotable(str(value))}"' for name, value in members.items())
        code = Code.ASSURANCE_INSUFFICIENT
        body = {
            "jsonrpc": "2.0",
            "id": request_id,
            "error": {
                "code": INVALID_REQUEST,
                "message": f"{self.step_up.advice}\n[{code}]",
                "data": {**members, "code": code, "txn": self.txn},
            },
        }
        headers = {"www-authenticate": f"{scheme} {challenge}", "cache-control": "no-store"}
        return JSONResponse(body, status_code=401, headers=headers)

    def _asked(self) -> dict[str, Any]:
        asked = {"acr_values": self.step_up.acr_values, "max_age": self.step_up.max_age_s}
        return {name: value for name, value in asked.items() if value is not None}


def takes_challenge(start: Message) -> bool:
    """Whether an answer that begins like this is the whole result of one message, in JSON."""
    return start["status"] == 200 and dict(start["headers"]).get(b"content-type") == b"application/json"  # noqa: PLR2004


def _quotable(text: str) -> str:
    # RFC 6750 §3: neither quotation marks nor backslashes, and ASCII alone.
    return "".join(each if " " <= each <= "~" and each not in '"\\' else "'" for each in text)
