"""The command line: one module a command, imported only when it is the one that runs."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from broker import __version__
from broker.errors import BrokerError, CatalogInvalid

COMMANDS = {
    "check": "find every mistake in a tools.toml",
    "serve": "serve agents over HTTP: /mcp and /sse",
    "stdio": "serve one agent over stdin and stdout",
    "session": "open, list and revoke sessions",
    "explain": "say why a call would be allowed or refused",
    "log": "list, show and verify the delegation log",
    "keys": "list, rotate and publish the signing keys",
}


class Command(Protocol):
    """What a module of this package has."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. The exit status is 0 for yes, 1 for no, 2 where the question could not be asked."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="broker",
        description="Give an agent tools without giving it keys.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<9} {what}" for name, what in COMMANDS.items())
        + "\n\n`broker COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tool-token-broker {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    if not arguments:
        parser.print_help()
        return 2
    name = parser.parse_args(arguments[:1]).command
    # A reviewer's `broker log` must not wait for the MCP server's imports: it has 0.3 s in all.
    command = cast("Command", importlib.import_module(f"broker.cli.{name}"))
    own = argparse.ArgumentParser(
        prog=f"broker {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(own)
    try:
        return command.run(own.parse_args(arguments[1:]))
    except CatalogInvalid as invalid:
        for mistake in invalid.mistakes:
            nearest = f" Did you mean `{mistake.nearest}`?" if mistake.nearest else ""
            print(
                f"{invalid.source}:{mistake.line}: {mistake.key}: {mistake.problem}{nearest}", file=sys.stderr
            )
        print(invalid.message, file=sys.stderr)
        return 1
    except BrokerError as error:
        print(f"broker {name}: {error.message} [{error.code}]", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `broker log list | head` closed the pipe: nobody reads on, which is no failure.
        sys.stderr.close()
        return 0
