"""A service that knows nothing of tokens, behind nginx: one call gets through, a thief does not.

python examples/gateway/behind_nginx.py

Needs nginx with auth_request (Debian: apt-get install nginx-light). Everything listens on loopback, in a
folder that is thrown away.
"""

import base64
import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from demo import Tap  # noqa: E402 - the examples are scripts, not a package
from stage import BROKER, PATIENCE_S, Surprise, free_ports  # noqa: E402

AGENT = HERE.parent / "agents" / "scripted" / "scripted_agent.py"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
PORTS = {"8700": "broker", "8080": "nginx", "8703": "service"}


class Service(BaseHTTPRequestHandler):
    """A service as it always was: whoever reaches it is served."""

    def do_GET(self) -> None:
        """One order, for anybody."""
        told = {name: self.headers.get(name) for name in ("Broker-Subject", "Broker-Agent", "Authorization")}
        body = json.dumps({"path": self.path, **told}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's
        """It says nothing."""


def main() -> None:
    if NGINX is None:
        sys.exit("there is no nginx here; with Debian: apt-get install nginx-light")
    with running() as (folder, ports, tap):
        credential = folder / "credential"
        words = ("--subject", "alice", "--agent", "support-bot", "--role", "support", "--for", "1h")
        broker(folder, "session", "open", *words, "--to", str(credential))
        said = subprocess.run(
            [sys.executable, str(AGENT), "--url", f"http://127.0.0.1:{ports['broker']}/mcp",
             json.dumps([["orders_get", {"order_id": "42"}]])],
            env={"BROKER_CREDENTIAL_FILE": str(credential)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )  # fmt: skip
        print("The agent's call:", json.loads(said.stdout.splitlines()[-1])["text"])

        stolen = tap.stolen("GET /orders/42 HTTP/1.1")
        url = f"http://127.0.0.1:{ports['nginx']}"
        for what, path, authorization in (
            ("no token at all", "/orders/42", None),
            ("the very same request again", "/orders/42", stolen),
            ("another path with the stolen token", "/orders/43", stolen),
            ("the same path, written otherwise", "/orders/%34%32", stolen),
        ):
            print(f"{what}: {status(url + path, authorization)}")

        print("\n$ broker log list --json    # what the broker has to say of it")
        for line in reversed(broker(folder, "log", "list", "--json").splitlines()):
            call = json.loads(line)
            print(f"{call['event']}: {call.get('tool') or '-'} {call.get('code') or ''}".rstrip())


@contextmanager
def running() -> Generator[tuple[Path, Mapping[str, int], Tap]]:
    """The broker, nginx and the service. The broker reaches nginx through a tap: a thief on the wire."""
    with tempfile.TemporaryDirectory(prefix="broker-") as name, ExitStack() as at_the_end:
        folder = Path(name)
        ports = free_ports("broker", "nginx", "service", "tap")
        secret = secrets.token_urlsafe(32)
        write(folder, ports, secret)

        service = ThreadingHTTPServer(("127.0.0.1", ports["service"]), Service)
        at_the_end.callback(service.shutdown)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        tap = at_the_end.enter_context(Tap(ports["tap"], ports["nginx"]))
        for command, port in (
            ([BROKER, "serve", "--config", str(folder / "tools.toml")], ports["broker"]),
            ([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")], ports["nginx"]),
        ):
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            at_the_end.callback(end, process)
            wait_for(port, process)
        yield folder, ports, tap


def write(folder: Path, ports: Mapping[str, int], secret: str) -> None:
    """The two files beside this one, with the ports and the secret of this run."""
    digest = base64.urlsafe_b64encode(sha256(secret.encode()).digest()).rstrip(b"=").decode()
    for name in ("tools.toml", "nginx.conf"):
        text = (HERE / name).read_text(encoding="utf-8").replace("PUT-THE-DIGEST-HERE", digest)
        for port, role in PORTS.items():
            reached = "tap" if (name, role) == ("tools.toml", "nginx") else role
            text = re.sub(rf"127\.0\.0\.1:{port}\b", f"127.0.0.1:{ports[reached]}", text)
        (folder / name).write_text(text, encoding="utf-8")
    # The secret is nginx's alone: nobody else may read the file.
    basic = base64.b64encode(f"orders-gateway:{secret}".encode()).decode()
    file = folder / "gateway.secret"
    file.touch(mode=0o600)
    file.write_text(f'proxy_set_header Gateway-Authorization "Basic {basic}";\n', encoding="utf-8")


def broker(folder: Path, *words: str) -> str:
    """Run one `broker` command; what it printed."""
    command = [BROKER, *words, "--config", str(folder / "tools.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        raise Surprise(f"broker {' '.join(words)}: {done.stderr}")
    return done.stdout


def status(url: str, authorization: str | None) -> int:
    """A thief's request; the status of the answer."""
    headers = {} if authorization is None else {"Authorization": authorization}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    end(process)
    raise Surprise(f"{process.args!r} did not start")


def end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    main()
