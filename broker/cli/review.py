"""Show the delegation log as a web page, to the person who starts this, on this machine.

The address that it prints logs one browser in, once. It needs no running broker and no keys, and
writes nothing but what was looked at.
"""

import argparse
from pathlib import Path

import anyio

from broker.cli.parser import config_option, describe
from broker.server.listening import host_and_port
from broker.server.quiet import quiet_logs
from broker.server.review.local import Local, review


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        examples="broker review\n"
        "broker review --open                    and open the browser\n"
        "broker review --store copy.db           a copy of a log, without its tools.toml",
        exits="0 when told to end, 2 it cannot start, and why",
    )
    config_option(parser)
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="a copy of a log (default: the log that the config names)"
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:0",
        metavar="AT",
        help="HOST:PORT on this machine alone; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--key", metavar="VKEY", help="the log's public key, as `broker log verify` prints it"
    )
    parser.add_argument("--open", action="store_true", help="open the browser, too")


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal."""
    quiet_logs()
    host, port = host_and_port(arguments.listen)
    local = Local(
        config=arguments.config,
        store=arguments.store,
        host=host,
        port=port,
        key=arguments.key,
        open_browser=arguments.open,
    )
    return anyio.run(review, local)
