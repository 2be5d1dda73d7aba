"""Set the stage, let one of the agents play, and print what it said and what the log says of it.

python examples/agents/run.py scripted
python examples/agents/run.py pydantic_ai
python examples/agents/run.py orchestrator
python examples/agents/run.py ci_deploy
python examples/agents/run.py stolen_session
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from stage import PATIENCE_S, Process, Stage, Surprise, staged  # noqa: E402 - scripts, not a package

SCRIPT = [
    ["orders_get", {"order_id": "42"}],
    ["orders_refund", {"order_id": "42", "amount": 40, "reason": "arrived late"}],
    ["orders_refund", {"order_id": "43", "amount": 900, "reason": "because I can"}],
    ["stock_get", {"sku": "A-1"}],
]
RESEARCH = [["orders_get", {"order_id": "42"}], ["stock_get", {"sku": "A-1"}]]
REFUNDS = [
    ["orders_refund", {"order_id": "43", "amount": 10, "reason": "arrived late"}],
    ["orders_refund", {"order_id": "42", "amount": 40, "reason": "arrived late"}],
]


def tell(stage: Stage, *agents: Process) -> None:
    """Print what each said, once it has ended."""
    for agent in agents:
        for said in stage.heard(agent):
            print(json.dumps(said, ensure_ascii=False))


def scripted(stage: Stage) -> None:
    alone(stage, "scripted", "scripted_agent.py", "--url", stage.mcp_url, json.dumps(SCRIPT))


def pydantic_ai(stage: Stage) -> None:
    alone(stage, "pydantic_ai", "pydantic_agent.py", stage.mcp_url, "43")


def alone(stage: Stage, name: str, script: str, *words: str) -> None:
    (credential,) = stage.open_sessions(("alice", f"{name}-agent", "support"))
    stage.wait_for("broker", "orders", "warehouse")
    tell(stage, stage.start_agent(HERE / name / script, credential, *words))


def orchestrator(stage: Stage) -> None:
    alice = stage.open_sessions(("alice", "orchestrator", "desk"))[0]
    own = {name: itself(stage, name) for name in ("researcher", "refunder")}
    stage.wait_for("broker", "orders", "warehouse")
    lead = HERE / "orchestrator" / "orchestrator_agent.py"
    tell(stage, stage.start_agent(lead, alice, stage.mcp_url, str(stage.folder)))
    script = HERE / "orchestrator" / "sub_agent.py"
    for name, calls in (("researcher", RESEARCH), ("refunder", REFUNDS)):
        claim = str(stage.folder / f"{name}.claim")
        tell(stage, stage.start_agent(script, own[name], stage.origin, claim, json.dumps(calls)))


def ci_deploy(stage: Stage) -> None:
    ci = f"http://127.0.0.1:{stage.ports['ci']}"
    command = [sys.executable, str(HERE / "ci_deploy" / "ci_system.py"), str(stage.ports["ci"])]
    stage.serve("ci", [*command, stage.origin])
    stage.wait_for("broker", "deploys", "ci")
    job = HERE / "ci_deploy" / "ci_agent.py"
    for ref, version in (("refs/heads/main", "1.4.2"), ("refs/heads/try-this", "6.6.6")):
        tell(stage, stage.start_agent(job, None, ci, stage.origin, ref, version))


def stolen_session(stage: Stage) -> None:
    alice = stage.open_sessions(("alice", "orchestrator", "desk"))[0]
    own = {name: itself(stage, name) for name in ("counter-1", "counter-2")}
    stage.wait_for("broker", "warehouse")
    sessions = {"thief": alice, **{name: child(stage, alice, name, own[name]) for name in own}}
    ready = {name: stage.folder / f"{name}.ready" for name in sessions}
    script = HERE / "stolen_session" / "stubborn_agent.py"
    agents = [
        stage.start_agent(script, credential, name, stage.mcp_url, str(ready[name]))
        for name, credential in sessions.items()
    ]
    until = time.monotonic() + PATIENCE_S
    while not all(each.exists() for each in ready.values()):
        if time.monotonic() > until:
            raise Surprise("the agents do not get to work")
        time.sleep(0.02)
    kept = [json.loads(line) for line in stage.broker("session", "list", "--json").splitlines()]
    (stolen,) = (each["sid"] for each in kept if each["agent"] == "orchestrator")
    print(f"$ broker revoke session {stolen}\n{stage.broker('revoke', 'session', stolen)}", end="")
    tell(stage, *agents)


def itself(stage: Stage, name: str) -> Path:
    """A credential by which an agent proves that it is that agent. It may call nothing with it."""
    file = stage.folder / f"{name}.credential"
    stage.broker("session", "open", "--subject", name, "--for", "1h", "--to", str(file))
    return file


def child(stage: Stage, credential: Path, name: str, own: Path) -> Path:
    """A part of a session for one of its sub-agents: both show what they have at the token endpoint."""
    file = stage.folder / f"{name}.child"
    file.write_text(stage.exchange(credential.read_text().strip(), own.read_text().strip()))
    return file


AGENTS: Mapping[str, Callable[[Stage], None]] = {
    "scripted": scripted,
    "pydantic_ai": pydantic_ai,
    "orchestrator": orchestrator,
    "ci_deploy": ci_deploy,
    "stolen_session": stolen_session,
}
SHOWN: Mapping[str, tuple[str, ...]] = {
    "orchestrator": ("--tool", "orders_refund", "--outcome", "returned"),
    "ci_deploy": ("--tool", "deploy"),
    "stolen_session": ("--agent", "counter-1"),
}
"""Which call is shown in full, where it is not the first."""


def main(name: str) -> None:
    rules = HERE / name / "rules.toml"
    with staged(rules=rules if rules.exists() else None) as stage:
        AGENTS[name](stage)
        commands: list[tuple[str, ...]] = [("log", "list", "--json", *SHOWN.get(name, ()))]
        if name == "stolen_session":
            commands.append(("session", "list", "--all"))
        else:
            commands.append(("log", "list"))
        lines, table = stage.brokers(*commands)
        print(f"\n$ broker {' '.join(commands[1])}\n{table}")
        shown = json.loads(lines.splitlines()[-1])
        print(f"$ broker log show TXN    # of {'one' if name in SHOWN else 'the first'} call")
        print(stage.broker("log", "show", shown["txn"]), end="")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in AGENTS:
        sys.exit(__doc__)
    main(sys.argv[1])
