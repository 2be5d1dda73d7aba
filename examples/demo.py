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

from stage import Stage, Surprise, staged

AGENT = Path(__file__).parent / "agents" / "scripted" / "scripted_agent.py"
JSON = Mapping[str, Any]


class Tap:
    """A thief on the wire between broker and orders: passes everything on, and keeps every request."""

    def __init__(self, port: int, to: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._to = to
        self._heard: list[bytearray] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                inbound, _ = self._listener.accept()
                self._open.append(inbound)
                outbound = socket.create_connection(("127.0.0.1", self._to))
                self._open.append(outbound)
            except OSError:
                return
            heard = bytearray()
            self._heard.append(heard)
            for source, sink, kept in ((inbound, outbound, heard), (outbound, inbound, None)):
                threading.Thread(target=self._pass_on, args=(source, sink, kept), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        try:
            while data := source.recv(65536):
                if kept is not None:
                    kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def stolen(self, request_line: str) -> str:
        """The `Authorization` header of a request that was heard."""
        for heard in self._heard:
            _, found, rest = bytes(heard).decode("latin-1").partition(request_line + "\r\n")
            for line in rest.partition("\r\n\r\n")[0].split("\r\n") if found else ():
                name, _, value = line.partition(": ")
                if name.lower() == "authorization":
                    return value
        raise Surprise(f"nobody sent {request_line}")


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
        print(f"  {mark} {text}".rstrip(), file=self.out, flush=True)

    def lines(self, text: str) -> None:
        for line in text.splitlines():
            self.line(line)


def main() -> int:
    tell = Teller(sys.stdout)
    began = time.monotonic()
    try:
        with staged(tapped=True) as stage, Tap(stage.ports["tap"], stage.ports["orders"]) as tap:
            play(stage, tap, tell)
        expect(all(each.returncode is not None for each in stage.processes.values()), "something still runs")
        expect(not stage.folder.exists(), f"{stage.folder} is left")
    except Surprise as surprise:
        tell.line(f"not as told: {surprise}", good=False)
        return 1
    except KeyboardInterrupt:
        tell.title("Interrupted; nothing is left running.")
        return 130
    tell.title(f"All as told, in {time.monotonic() - began:.1f} s; nothing is left running.")
    return 0


SUPPORT: list[Any] = [
    ["orders_get", {"order_id": "42"}],
    ["orders_refund", {"order_id": "42", "amount": 40, "reason": "arrived late"}],
    ["orders_refund", {"order_id": "43", "amount": 900, "reason": "because I can"}],
    ["stock_get", {"sku": "A-1"}],
]
AUDIT: list[Any] = [
    ["orders_search", {"customer": "c-7"}],
    ["orders_refund", {"order_id": "42", "amount": 40, "reason": "arrived late"}],
]


def play(stage: Stage, tap: Tap, tell: Teller) -> None:
    tell.title("A broker, two backends (orders, warehouse), and two sessions")
    alice, bob = stage.open_sessions(("alice", "support-bot", "support"), ("bob", "audit-bot", "auditor"))
    tell.line("alice lets support-bot work for her, in the role support")
    tell.line("bob lets audit-bot work for him, in the role auditor")

    # Both agents at once: each takes longer to import what it needs than for all of its calls. Neither before
    # the broker listens: a backend that found no keys does not ask again for a while.
    stage.wait_for("broker", "orders", "warehouse")
    audit = stage.start_agent(AGENT, bob, "--stdio", str(stage.config), json.dumps(AUDIT))
    support = stage.start_agent(AGENT, alice, "--url", stage.mcp_url, json.dumps(SUPPORT))
    shown, *said = stage.heard(support)
    audit_shown, *audit_said = stage.heard(audit)
    log = listed(stage)

    tell.title("support-bot, over streamable HTTP")
    tell.line(f"sees {', '.join(shown['tools'])}")
    expect(shown["tools"] == ["orders_get", "orders_refund", "orders_search", "stock_get"], "its tools")
    expect([each["error"] for each in said] == [False, False, True, False], f"its calls: {said}")
    calls = retell(log, tell, said, "alice")

    tell.title("audit-bot, over stdio, at the same time")
    tell.line(f"sees {', '.join(audit_shown['tools'])}")
    expect(audit_shown["tools"] == ["orders_get", "orders_search"], "its tools")
    expect([each["error"] for each in audit_said] == [False, True], f"its calls: {audit_said}")
    retell(log, tell, audit_said, "bob")

    tell.title("A thief, who heard support-bot's first call on the wire, with its token")
    authorization = tap.stolen("GET /orders/42 HTTP/1.1")
    for name, what in (
        ("orders", "sends the very same request again"),
        ("warehouse", "tries the other backend"),
    ):
        status = request(stage.ports[name], "/orders/42", authorization)
        tell.line(f"{what}: {name} answers {status}", good=status == 401)
        expect(status == 401, f"{name} answered {status} to a stolen token")

    txn = calls[0]["txn"]
    table, story = stage.brokers(("log", "list"), ("log", "show", txn))
    expect("REPLAY refused" in story, "the replay is not in the log")
    tell.title("What the reviewer sees: broker log list")
    tell.lines(table)
    tell.title(f"One call, and what became of its token: broker log show {txn}")
    tell.lines(story)

    stage.end("broker")  # it signs its log when it ends, as it does every minute
    tell.title("And is it all there? broker log verify --checkpoint, with what was kept elsewhere")
    tell.lines(stage.broker("log", "verify", "--checkpoint", str(stage.elsewhere)))


def retell(log: Sequence[JSON], tell: Teller, said: Sequence[JSON], subject: str) -> Sequence[JSON]:
    """Each call as the log has it: chain, rule, and how the token ended."""
    lines = [line for line in reversed(log) if line["sub"] == subject]
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
            tell.line("    no token was minted")
    return lines


def listed(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stage.broker("log", "list", "--json").splitlines()]


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


def expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise Surprise(otherwise)


if __name__ == "__main__":
    sys.exit(main())
