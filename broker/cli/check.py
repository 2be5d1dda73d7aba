"""Find every mistake in a tools.toml, or say what it grants.

Ends with 0 where the file is good, 1 where it has mistakes, 2 where it cannot be read.
"""

import argparse
import json
from pathlib import Path

from broker.catalog import Catalog, Grant
from broker.errors import CatalogInvalid
from broker.policy import names
from broker.tools_toml import load


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("tools.toml"), help="tools.toml, unless named"
    )
    parser.add_argument("--config", dest="file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="the mistakes as a JSON list, for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        catalog = load(arguments.file)
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
        print(f"\nrole {role.name} may call")
        for grant in role.grants:
            for tool in _tools(catalog, grant):
                print(f"  {tool:<24}{_conditions(grant)}".rstrip())
    return 0


def _tools(catalog: Catalog, grant: Grant) -> list[str]:
    return [name for name in catalog.tools if names(grant, name)]


def _conditions(grant: Grant) -> str:
    conditions: list[str] = []
    if grant.arguments is not None:
        conditions.append("with some arguments")
    if grant.rate is not None:
        conditions.append(f"{grant.rate.limit} times in {grant.rate.window_s} s")
    if grant.until_s is not None:
        conditions.append("until a date")
    return ", ".join(conditions)
