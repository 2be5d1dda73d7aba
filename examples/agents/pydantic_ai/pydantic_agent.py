"""An agent on pydantic-ai: it looks an order up, refunds what it may, and takes a no for an answer.

    BROKER_CREDENTIAL_FILE=alice.credential python pydantic_agent.py http://127.0.0.1:8700/mcp 43

The model is a function, so that it runs without a network and always does the same. A real one sees the same
messages: a refusal is a sentence with a stable code, which it can act on.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel


def think(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """What a language model would decide, step by step, from what the tools have answered so far."""
    order_id = next(
        str(part.content)
        for message in messages
        for part in message.parts
        if isinstance(part, UserPromptPart)
    )
    answers = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if not answers:
        return _call("orders_get", order_id=order_id)
    if len(answers) == 1:
        order = answers[0].model_response_object()
        return _call("orders_refund", order_id=order_id, amount=order["total"], reason="it never arrived")
    last = answers[-1].model_response_str()
    if "[arguments.not_granted]" in last and len(answers) == 2:
        # It may not pay back so much. It tries what support usually may; a person does the rest.
        return _call("orders_refund", order_id=order_id, amount=100, reason="a first part of it")
    return ModelResponse(
        parts=[TextPart(f"Refunded 100 euros of order {order_id}; a colleague sees to the rest.")]
    )


def _call(tool: str, **arguments: object) -> ModelResponse:
    return ModelResponse(parts=[ToolCallPart(tool, arguments)])


async def run(url: str, order_id: str, credential: str) -> None:
    # A refusal is told to the model as what the tool answered; it does not end the run.
    tools: MCPToolset[Any] = MCPToolset(
        url, headers={"Authorization": f"Bearer {credential}"}, tool_error_behavior="failed"
    )
    agent = Agent(FunctionModel(think), toolsets=[tools])
    result = await agent.run(order_id)
    for message in result.all_messages():
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                print(json.dumps({"calls": part.tool_name, "with": part.args_as_dict()}), flush=True)
            elif isinstance(part, ToolReturnPart):
                print(json.dumps({"hears": part.model_response_str()}, ensure_ascii=False), flush=True)
    print(json.dumps({"says": result.output}), flush=True)


if __name__ == "__main__":
    kept = Path(os.environ["BROKER_CREDENTIAL_FILE"]).read_text().strip()
    anyio.run(run, sys.argv[1], sys.argv[2], kept)
