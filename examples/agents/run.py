"""Set the stage, let one of the agents play, and print what it said and what the log says of it.

python examples/agents/run.py scripted
python examples/agents/run.py pydantic_ai
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from stage import Stage, staged  # noqa: E402 - the examples are scripts, not a package

AGENTS = {
    "scripted": HERE / "scripted" / "scripted_agent.py",
    "pydantic_ai": HERE / "pydantic_ai" / "pydantic_agent.py",
}
SCRIPT = [
    ["orders_get", {"order_id": "42"}],
    ["orders_refund", {"order_id": "42", "amount": 40, "reason": "arrived late"}],
    ["orders_refund", {"order_id": "43", "amount": 900, "reason": "because I can"}],
    ["stock_get", {"sku": "A-1"}],
]


def words(name: str, stage: Stage) -> list[str]:
    """The agent's command line."""
    return ["--url", stage.mcp_url, json.dumps(SCRIPT)] if name == "scripted" else [stage.mcp_url, "43"]


def main(name: str) -> None:
    with staged() as stage:
        (credential,) = stage.open_sessions(("alice", f"{name}-agent", "support"))
        stage.wait_for("broker", "orders", "warehouse")
        for said in stage.heard(stage.start_agent(AGENTS[name], credential, *words(name, stage))):
            print(json.dumps(said, ensure_ascii=False))
        table, lines = stage.brokers(("log", "list"), ("log", "list", "--json"))
        print(f"\n$ broker log list\n{table}")
        first = json.loads(lines.splitlines()[-1])
        print("$ broker log show TXN    # of the first call")
        print(stage.broker("log", "show", first["txn"]), end="")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in AGENTS:
        sys.exit(__doc__)
    main(sys.argv[1])
