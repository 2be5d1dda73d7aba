"""`make demo`: a broker, two backends, two agents, and a thief.

Real processes on loopback, in a folder that is thrown away. Ends non-zero if any step does not go as it
says here.
"""

import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from stage import Stage, staged

AGENT = Path(__file__).parent / "agents" / "scripted" / "scripted_agent.py"
JSON = Mapping[str, Any]


class Surprise(Exception):
    """A step did not go as told."""


class Tap:
    """A thief on the wire between broker and orders: passes everything on, and keeps every request."""

    def __init__(self, port: int, to: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._to = to
        self._heard: list[bytes] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inbound, _ = self._listener.accept()
            except OSError:
                return
            outbound = socket.create_connection(("127.0.0.1", self._to))
            for source, sink, keep in ((inbound, outbound, True), (outbound, inbound, False)):
                threading.Thread(target=self._pass_on, args=(source, sink, keep), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:  # noqa: FBT001
        try:
            while data := source.recv(65536):
                if keep:
                    self._heard.append(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def stolen(self) -> tuple[str, str]:
        """Path and `Authorization` header of the first request that was heard."""
        head = self._heard[0].decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
        headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head[1:]}
        return head[0].split(" ")[1], headers["authorization"]


@dataclass(frozen=True, slots=True)
class Teller:
    """Says what happens, in colour where a terminal shows it."""

    out: TextIO

    def _styled(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.out.isatty() else text

    def title(self, text: str) -> None:
        print(f"\n{self._styled(text, '1')}", file=self.out, flush=True)

    def line(self, text: str, good: bool | None = None) -> None:  # noqa: FBT001
        mark = {None: " ", True: self._styled("✓", "32"), False: self._styled("✗", "31")}[good]
        print(f"  {mark} {text}", file=self.out, flush=True)


def main() -> int:
    tell = Teller(sys.stdout)
    began = time.monotonic()
    try:
        with staged(tapped=True) as stage, Tap(stage.ports["tap"], stage.ports["orders"]) as tap:
            play(stage, tap, tell)
            processes = stage.processes
        expect(all(process.returncode is not None for process in processes), "something is left running")
    except Surprise as surprise:
        tell.line(f"not as told: {surprise}", good=False)
        return 1
    tell.title(f"All as told, in {time.monotonic() - began:.1f} s; nothing is left running.")
    return 0


def play(stage: Stage, tap: Tap, tell: Teller) -> None:
    tell.title("A broker, two backends (orders, warehouse), and two sessions")
    alice = stage.open_session("alice", "support-bot", "support")
    bob = stage.open_session("bob", "audit-bot", "auditor")
    tell.line("alice lets support-bot work for her, in the role support")
    tell.line("bob lets audit-bot work for him, in the role auditor")

    tell.title("support-bot, over streamable HTTP")
    calls: list[Any] = [
        ["orders_get", {"order_id": "42"}],
        ["orders_refund", {"order_id": "42", "amount": 40, "reason": "arrived late"}],
        ["orders_refund", {"order_id": "43", "amount": 900, "reason": "because I can"}],
        ["stock_get", {"sku": "A-1"}],
    ]
    shown, *said = stage.agent(AGENT, alice, "--url", stage.mcp_url, json.dumps(calls))
    tell.line(f"sees {', '.join(shown['tools'])}")
    expect(shown["tools"] == ["orders_get", "orders_refund", "orders_search", "stock_get"], "its tools")
    expect([each["error"] for each in said] == [False, False, True, False], f"its calls: {said}")
    retell(stage, tell, said, "alice")

    tell.title("audit-bot, over stdio")
    calls = [["orders_search", {"customer": "c-7"}], ["orders_refund", calls[1][1]]]
    shown, *said = stage.agent(AGENT, bob, "--stdio", str(stage.config), json.dumps(calls))
    tell.line(f"sees {', '.join(shown['tools'])}")
    expect(shown["tools"] == ["orders_get", "orders_search"], "its tools")
    expect([each["error"] for each in said] == [False, True], f"its calls: {said}")
    retell(stage, tell, said, "bob")

    tell.title("A thief, who heard the first call on the wire, with its token")
    path, authorization = tap.stolen()
    for name, what in (
        ("orders", "sends the very same request again"),
        ("warehouse", "tries the other backend"),
    ):
        status = request(stage.ports[name], path, authorization)
        tell.line(f"{what}: {name} answers {status}", good=status == 401)
        expect(status == 401, f"{name} answered {status} to a stolen token")
    replays = listed(stage, "--outcome", "replayed")
    expect(len(replays) == 1, "the replay is not in the log")
    tell.line(f"the log has the replay, under call {replays[0]['txn']}", good=True)

    tell.title("What the reviewer sees: broker log list")
    tell_output(stage, tell, "log", "list")
    tell.title(f"One call: broker log show {replays[0]['txn']}")
    tell_output(stage, tell, "log", "show", replays[0]["txn"])
    tell.title("And is it all there? broker log verify")
    tell_output(stage, tell, "log", "verify")


def retell(stage: Stage, tell: Teller, said: Sequence[JSON], subject: str) -> None:
    """Each call as the log has it: chain, rule, and how the token ended."""
    lines = list(reversed(listed(stage, "--subject", subject)))
    expect(len(lines) == len(said), f"{len(said)} calls, {len(lines)} of them in the log")
    for call, line in zip(said, lines, strict=True):
        expect(call["tool"] == line["tool"], "the log is in another order")
        chain = f"{line['sub']} ← {line['agent']}"
        arguments = ", ".join(f"{name}={value}" for name, value in call["arguments"].items())
        tell.line(f"{call['tool']}({arguments})   {chain}", good=not call["error"])
        if line["event"] == "allowed":
            expect(line["outcome"] == "returned" and line["spent"], f"the call ended as {line['outcome']}")
            tell.line(f"    allowed by {line['rule']}; its token was spent once, and the call returned")
        else:
            tell.line(f"    refused [{line['code']}]: {call['text'].splitlines()[0]}")


def listed(stage: Stage, *words: str) -> list[dict[str, Any]]:
    done = stage.broker("log", "list", "--json", *words)
    expect(done.returncode == 0, f"broker log list: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def request(port: int, path: str, authorization: str) -> int:
    """The thief's request; the status of the answer."""
    stolen = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": authorization}
    )
    try:
        with urllib.request.urlopen(stolen, timeout=5) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def tell_output(stage: Stage, tell: Teller, *words: str) -> None:
    done = stage.broker(*words)
    for line in done.stdout.splitlines():
        tell.line(line)
    expect(done.returncode == 0, f"broker {' '.join(words)} ended with {done.returncode}: {done.stderr}")


def expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise Surprise(otherwise)


if __name__ == "__main__":
    sys.exit(main())
