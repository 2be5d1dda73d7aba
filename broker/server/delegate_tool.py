"""The built-in tool `delegate`, as MCP shows it and answers it."""

from typing import Any

from broker.catalog import Catalog
from broker.delegate import Offered
from broker.delegate_arguments import INPUT
from broker.delegation import TOOL, agents_of, may_delegate
from broker.exchange import CLAIM_CODE
from broker.record import timestamp
from broker.session import Session

_MAX_SHOWN = 1000


def shown_tool(session: Session, catalog: Catalog) -> dict[str, Any] | None:
    """The tool, for a session that some rule lets hand on; None for all others."""
    if not may_delegate(session, catalog):
        return None
    agents = ", ".join(agents_of(session, catalog))
    return {
        "name": TOOL,
        "title": "Delegate to another agent",
        "description": "Let another agent call some of your tools, for whom you work. The answer is a claim "
        "code: give it to that agent, which alone can redeem it, once and within a minute. It gets no more "
        f"than you name, and never more than you have. Agents (* is any text): {agents[:_MAX_SHOWN]}",
        "inputSchema": dict(INPUT.document),
        "annotations": {"readOnlyHint": False, "idempotentHint": False, "openWorldHint": False},
    }


def answer(offer: Offered, *, issuer: str) -> dict[str, Any]:
    """The result of a call: for whom the code is, until when, and how it is redeemed."""
    tools = sorted(offer.child.limits[-1].tools)
    until, expires = timestamp(offer.until_s * 1000), timestamp(offer.child.expires_s * 1000)
    facts = {
        "claim_code": offer.code,
        "agent": offer.agent.sub,
        "agent_iss": offer.agent.iss,
        "tools": tools,
        "redeem_before": until,
        "expires": expires,
        "token_endpoint": f"{issuer}/token",
        "subject_token_type": CLAIM_CODE,
    }
    text = (
        f"Claim code: {offer.code}\n"
        f"Give it to {offer.agent.sub} ({offer.agent.iss}), which alone can redeem it: once, before {until}, "
        "with a credential of its own. It is redeemed with `broker session redeem CODE --credential-file "
        f"FILE`, or at {issuer}/token as a subject_token of the type {CLAIM_CODE}, with that credential as "
        f"actor_token.\nFor {', '.join(tools)}, until {expires}."
    )
    return {
        "resultType": "complete",
        "content": [{"type": "text", "text": text}],
        "isError": False,
        "structuredContent": facts,
        "_meta": {"broker/txn": offer.txn},
    }
