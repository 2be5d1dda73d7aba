"""The parser that every command is declared with: pages that say enough, and mistakes with a way out."""

import argparse
import importlib
import re
import shutil
import textwrap
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, Self

WIDTH = 100


class Parser(argparse.ArgumentParser):
    """argparse's, with wider pages, no abbreviations, and errors that name the nearest and the next step."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - argparse's own, for a parser or a part of one
        # `--sub` would be `--subject` until the day that another option begins like it.
        super().__init__(formatter_class=_page, allow_abbrev=False, **given)

    def error(self, message: str) -> NoReturn:
        """One sentence and the command that says more, instead of the whole usage."""
        if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
            message = self._unknown(found[1].split() or [""])
        self.exit(2, f"{self.prog}: {message}\nsee `{self.prog} --help`\n")

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - its overloads say the same
        self,
        args: Iterable[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """Leaves nothing to the parser above: only this one knows which options would have been right."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def _unknown(self, words: list[str]) -> str:
        name = words[0].partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        if not name.startswith("-"):
            return f"does not know what to do with {name!r}"
        return f"there is no option {name}{_did_you_mean(name, known)}"

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(each) for each in action.choices]
            few = f"it is one of {', '.join(known)}" if known[1:] else f"write {known[0]}"
            near = _did_you_mean(str(value), known) or f": {few}"
            raise argparse.ArgumentError(action, f"there is no {str(value)!r}{near}")


class Later(Parser):
    """The parser of one action, which learns its arguments from a module when it is first used."""

    def __init__(self, *, module: str, **given: Any) -> None:  # noqa: ANN401 - as above
        super().__init__(**given)
        self._module: str | None = module

    def ready(self) -> Self:
        """Import the module, have it declare its arguments, and keep its `run` for whoever parsed."""
        name, self._module = self._module, None
        if name is not None:
            action = importlib.import_module(name)
            action.configure(self)
            self.set_defaults(run=action.run)
        return self

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - its overloads say the same
        self,
        args: Iterable[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """As of the parser above, once there is something to parse."""
        self.ready()
        return super().parse_known_args(args, namespace)


def nearest_command(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or the list of what there is."""
    names = list(known)
    return _did_you_mean(name, names) or f"; the commands are {', '.join(names)}"


def describe(parser: argparse.ArgumentParser, *, what: str | None = None, examples: str, exits: str) -> None:
    """A page: what the command does, how it is typed, and what its exit status means."""
    if what is not None:
        parser.description = "\n".join(textwrap.fill(line, WIDTH) for line in what.split("\n"))
    lines = textwrap.indent(examples.strip(), "  ")
    status = textwrap.fill(f"exit status: {exits}", WIDTH, subsequent_indent="  ")
    parser.epilog = f"examples:\n{lines}\n\n{status}"


def config_option(parser: argparse.ArgumentParser) -> None:
    """`--config`, the same for every command."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("tools.toml"),
        metavar="FILE",
        help="the broker's tools.toml (default: %(default)s)",
    )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _page(prog: str) -> argparse.HelpFormatter:
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    return argparse.RawDescriptionHelpFormatter(prog, width=width, max_help_position=28)
