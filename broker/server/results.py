"""What an agent hears of a call that gave it nothing: results that a model can act on."""

from typing import Any

from broker.errors import Code
from broker.issue import Denied
from broker.server.challenge import Challenge


def error_result(sentence: str, code: Code, txn: str | None) -> dict[str, Any]:
    """A tool error: what happened, and under which stable code."""
    meta: dict[str, Any] = {"broker/code": code}
    if txn is not None:
        meta["broker/txn"] = txn
    return {
        "resultType": "complete",
        "content": [{"type": "text", "text": f"{sentence}\n[{code}]"}],
        "isError": True,
        "_meta": meta,
    }


def denied_result(denied: Denied) -> tuple[dict[str, Any], Challenge | None]:
    """A refusal, and the challenge that may stand in its place (RFC 9470 §3), where there is one."""
    refused = denied.refused
    result = error_result(refused.shown, refused.shown_code, denied.txn)
    if refused.step_up is None:
        return result, None
    challenge = Challenge(step_up=refused.step_up, txn=denied.txn)
    result["_meta"] |= challenge.meta()
    return result, challenge


def bounded(text: str, most: int) -> str:
    """The client's own words: not many, and without lone surrogates, for which canonical JSON has no form."""
    return text[:most].encode(errors="replace").decode()


LOG_UNAVAILABLE = error_result(
    "The delegation log cannot be written now, so nothing may be called; nothing was. Try again later.",
    Code.LOG_UNAVAILABLE,
    None,
)
LOG_UNAVAILABLE["_meta"]["broker/retryable"] = True
