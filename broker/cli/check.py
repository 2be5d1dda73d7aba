"""Find every mistake in a tools.toml, or say what it grants."""

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.canonical import canonical_json
from broker.catalog import Catalog, Grant, Role
from broker.cli.parser import describe
from broker.errors import CatalogInvalid, Usage
from broker.plain_text import plain
from broker.policy import fits, names
from broker.tools_toml import load


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        examples="broker check\nbroker check /etc/broker/tools.toml --json",
        exits="0 the file is good, 1 it has mistakes, 2 it cannot be read",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the file (default: tools.toml)")
    # As for every other command. A dest of its own: the default of a FILE that is missing would win over it.
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="the mistakes as a JSON list, for programs")


def run(arguments: argparse.Namespace) -> int:
    if arguments.file and arguments.config:
        raise Usage("FILE and --config are the same: give one of them")
    try:
        catalog = load(arguments.file or arguments.config or Path("tools.toml"))
    except CatalogInvalid as invalid:
        if not arguments.json:
            raise
        fields = ("line", "key", "problem", "nearest")
        print(json.dumps([{name: getattr(each, name) for name in fields} for each in invalid.mistakes]))
        return 1
    if arguments.json:
        print("[]")
        return 0
    print(
        f"{catalog.source} is good: {len(catalog.tools)} tools on {len(catalog.backends)} backends,"
        f" {len(catalog.roles)} roles, {len(catalog.issuers)} issuers"
    )
    for role in catalog.roles.values():
        _print_role(catalog, role)
    granted = {
        tool for role in catalog.roles.values() for grant in role.grants for tool in _tools(catalog, grant)
    }
    for tool in catalog.tools:
        if tool not in granted:
            print(f"\nno role may call {tool}")
    for export in catalog.exports.values():
        print(f"\nthe log is sent to {export.name}{', with arguments in clear' if export.private else ''}")
    return 0


def _print_role(catalog: Catalog, role: Role) -> None:
    if role.grants:
        print(f"\nrole {role.name} may call")
    for grant in role.grants:
        for tool in _tools(catalog, grant):
            print(f"  {tool:<24}{_conditions(grant)}".rstrip())
    for rule in role.delegates:
        agents = plain(", ".join(rule.to))
        print(f"\nrole {role.name} may hand on to {agents} ({rule.issuer}), for {rule.for_s} s at most")
        for tool in catalog.tools:
            if fits(rule.tools, tool):
                print(f"  {tool}")


def _tools(catalog: Catalog, grant: Grant) -> list[str]:
    return [name for name in catalog.tools if names(grant, name)]


def _conditions(grant: Grant) -> str:
    conditions: list[str] = []
    if grant.rate is not None:
        conditions.append(f"{grant.rate.limit} times in {grant.rate.window_s} s")
    if grant.until_s is not None:
        # From 1 to 9999 by TOML's grammar, and yet beyond what a system's own clock may know.
        end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=grant.until_s)
        conditions.append(f"until {end:%Y-%m-%dT%H:%M:%SZ}")
    if grant.arguments is not None:
        conditions.append(f"with {plain(canonical_json(dict(grant.arguments.document)).decode())}")
    return ", ".join(conditions)
