"""One brokered call: issue a token, use it once, record how it ended."""

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from broker.backends.protocols import Answer, Backends
from broker.canonical import Json
from broker.errors import BackendFailed, Code
from broker.issue import Ask, Denied, Issued, Issuer
from broker.record import Outcome, Record
from broker.store.protocols import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A call that was allowed, and what the backend said."""

    txn: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A call that was allowed and gave no usable answer. The message is for the agent."""

    txn: str
    code: Code
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`issue` and the backend around it.

    Attributes:
        monotonic: seconds, for durations only: the wall clock may jump.
    """

    issuer: Issuer
    backends: Backends
    log: Log
    now_ms: Callable[[], int]
    monotonic: Callable[[], float]

    async def call(self, ask: Ask) -> Called | Failed | Denied:
        """Make one call.

        1. There is a token, and its record is durable; or there is a refusal, and that is.
        2. The token goes into one request, which has a limit of time and is never sent again.
        3. However it ends, by an answer, a failure, a time-out, a cancellation or a defect, the end is
           recorded. Not waited for: an end that a crash takes away leaves the call shown as unfinished.

        Raises:
            LogUnavailable: nothing was issued and nothing was called.
        """
        # 1. Issue.
        issued = await self.issuer.issue(ask)
        if isinstance(issued, Denied):
            return issued

        # 2. Use, once.
        began = self.monotonic()
        outcome: Outcome = "cancelled"
        details: dict[str, Json] = {"code": Code.CALL_CANCELLED}
        try:
            with anyio.fail_after(issued.tool.timeout_s):
                answer = await self.backends.send(
                    issued.tool, issued.request, issued.token, txn_token=issued.txn_token
                )
            outcome = "failed" if answer.failed else "returned"
            details = {"status": answer.status, "bytes": answer.bytes}
            if answer.failed:
                details["code"] = Code.BACKEND_STATUS
            return Called(txn=issued.txn, answer=answer)
        except TimeoutError:
            outcome, details = "failed", {"code": Code.BACKEND_TIMEOUT}
            message = (
                f"The backend {issued.tool.backend.name} did not answer within {issued.tool.timeout_s:g} s."
            )
            return Failed(txn=issued.txn, code=Code.BACKEND_TIMEOUT, message=message)
        except BackendFailed as failed:
            outcome, details = "failed", {"code": failed.code}
            return Failed(txn=issued.txn, code=failed.code, message=failed.message)
        except Exception:
            # A defect, and no cancellation: the log must not say that the agent took the call back.
            outcome, details = "failed", {"code": Code.INTERNAL}
            raise

        # 3. Record the end.
        finally:
            self._ended(issued, outcome, details, self.monotonic() - began)

    def _ended(self, issued: Issued, outcome: Outcome, details: dict[str, Json], seconds: float) -> None:
        facts: dict[str, Json] = {
            "jti": issued.jti,
            "tenant": issued.tenant,
            "outcome": outcome,
            "duration_ms": round(seconds * 1000),
        }
        self.log.append_soon(
            Record(event="ended", time_ms=self.now_ms(), txn=issued.txn, fields=details | facts)
        )
