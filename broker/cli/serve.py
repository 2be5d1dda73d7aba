"""Serve agents over HTTP: MCP's streamable HTTP at /mcp, its older SSE transport at /sse.

The keys are at /.well-known/jwks.json, readiness at /readyz. SIGHUP loads the tools.toml again, and
so does a change of the file; SIGTERM lets the calls under way finish.
"""

import argparse

import anyio

from broker.catalog import Catalog
from broker.cli.parser import config_option, describe
from broker.server.listening import host_and_port
from broker.server.over_http import Listen, serve
from broker.server.quiet import quiet_logs


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        examples="broker serve\n"
        "broker serve --config /etc/broker/tools.toml --listen 127.0.0.1:0\n"
        "broker serve --listen 0.0.0.0:8443 --tls-cert chain.pem --tls-key key.pem",
        exits="0 when told to end, 2 it cannot start, and why",
    )
    config_option(parser)
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="port 0 takes a free one (default: `listen` in the file, else where `issuer` says)",
    )
    parser.add_argument("--tls-cert", metavar="PEM", help="certificate chain (default: plain HTTP)")
    parser.add_argument("--tls-key", metavar="PEM", help="its private key; both or neither")
    parser.add_argument(
        "--insecure-http",
        action="store_true",
        help="listen beyond this machine without TLS: anybody on the way can read every credential",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal. Exit status 0 when told to end."""
    quiet_logs()

    def listen(catalog: Catalog) -> Listen:
        host, port = catalog.broker.listen
        if arguments.listen is not None:
            host, port = host_and_port(arguments.listen)
        return Listen(
            host=host,
            port=port,
            tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key,
            insecure_http=arguments.insecure_http,
        )

    async def main() -> int:
        return await serve(arguments.config, listen=listen)

    return anyio.run(main, backend_options={"use_uvloop": True})
