"""The command line: one module a command, imported only when it is the one that runs."""

import importlib
import os
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

from broker import __version__
from broker.cli.parser import Parser, describe, nearest_command
from broker.errors import BrokerError, CatalogInvalid, Code

COMMANDS = {
    "check": "find every mistake in a tools.toml",
    "serve": "serve agents over HTTP: /mcp and /sse",
    "stdio": "serve one agent over stdin and stdout",
    "session": "open, redeem, list and revoke sessions",
    "revoke": "end a session, a token, or everything of an actor, a subject, an issuer or a tenant",
    "explain": "say why a call would be allowed or refused",
    "log": "read, prove, export and keep the delegation log",
    "review": "show the delegation log as a web page, on this machine",
    "keys": "list, rotate and publish the signing keys; print a witness's; make a client's secret",
}
INTERRUPTED = 130
PIPE_CLOSED = 141
"""128 and the signal's number, as shells have it."""


class Command(Protocol):
    """What a module of this package has."""

    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and translate whatever it ends with: the one place where that is done.

    Returns:
        0 for yes, 1 for no (a call refused, a log tampered with, a file with mistakes), 2 where the
        question could not be asked.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    status = PIPE_CLOSED
    try:
        status = _run(arguments)
        # Now, and not when the interpreter ends: there a closed pipe is a complaint and another status.
        sys.stdout.flush()
    except KeyboardInterrupt:
        _leave_stdout()
        status = INTERRUPTED
    except BrokenPipeError:
        # `broker log list | head` has what it wanted. No 0 for a verdict that nobody has read.
        _leave_stdout()
    return status


def build_parser() -> Parser:
    """The parser in front of the commands."""
    parser = Parser(
        prog="broker",
        description="Give an agent tools without giving it keys.\n\ncommands:\n"
        + "\n".join(f"  {name:<9} {what}" for name, what in COMMANDS.items())
        + "\n\n`broker COMMAND --help` says more.",
    )
    describe(
        parser,
        examples="broker check\n"
        "broker session open --subject alice --agent bot --role support --for 8h --to alice.credential\n"
        "broker serve\n"
        "broker log list",
        exits="0 yes, 1 no, 2 the question could not be asked",
    )
    parser.add_argument("--version", action="version", version=f"tool-token-broker {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of those above")
    return parser


def command_parser(name: str) -> tuple[Parser, Command]:
    """The parser of one command, and its module."""
    # A reviewer's `broker log` must not wait for the MCP server's imports: it has 0.3 s in all.
    command = cast("Command", importlib.import_module(f"broker.cli.{name}"))
    parser = Parser(prog=f"broker {name}", description=command.__doc__)
    command.configure(parser)
    return parser, command


def _run(arguments: Sequence[str]) -> int:
    name = "COMMAND"
    try:
        parser = build_parser()
        if not arguments:
            parser.print_help()
            return 2
        name = str(parser.parse_args(arguments[:1]).command)
        if name not in COMMANDS:
            parser.error(f"there is no command {name!r}{nearest_command(name, COMMANDS)}")
        own, command = command_parser(name)
        return command.run(own.parse_args(arguments[1:]))
    except SystemExit as end:
        # argparse's: 0 after --help, 2 after a mistake, which it has told.
        return end.code if isinstance(end.code, int) else 2
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last door: nothing goes on above it
        return _told(name, error)


def _told(name: str, error: BaseException) -> int:
    """Tell what ended a command, and give its exit status."""
    error = _alone(error)
    if isinstance(error, CatalogInvalid):
        for line in _mistakes(error):
            print(line, file=sys.stderr)
        # For `check` that is the answer; for everybody else nobody knows what the file was meant to say.
        return 1 if name == "check" else 2
    if isinstance(error, BrokerError):
        print(f"broker {name}: {error.message} [{error.code}]", file=sys.stderr)
        return 2
    for line in _unforeseen(name, error):
        print(line, file=sys.stderr)
    return 2


def _alone(error: BaseException) -> BaseException:
    """Of a task group, the one thing that went wrong in it."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inside = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return _alone(inside[0]) if len(inside) == 1 else cast("BaseException", error)


def _mistakes(invalid: CatalogInvalid) -> Iterator[str]:
    for mistake in invalid.mistakes:
        nearest = f" Did you mean `{mistake.nearest}`?" if mistake.nearest else ""
        yield f"{invalid.source}:{mistake.line}: {mistake.key}: {mistake.problem}{nearest}"
    yield invalid.message


def _unforeseen(name: str, error: BaseException) -> Iterator[str]:
    """Where it happened, for a report; never the exception's own text, which may quote a credential."""
    yield f"broker {name}: a mistake in the broker itself ({type(error).__name__}) [{Code.INTERNAL}]"
    package = Path(__file__).parents[1]
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(package):
            yield f"  {Path(frame.filename).relative_to(package.parent)}:{frame.lineno} in {frame.name}"


def _leave_stdout() -> None:
    """Whoever read it has gone, or shall not be waited for: what is still buffered goes nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
