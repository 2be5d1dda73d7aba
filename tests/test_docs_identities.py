"""docs/identities.md: its recipes are one good catalog, and what it says of a job's token is so."""

import re
from pathlib import Path
from typing import get_args

import pytest

from broker.catalog import IssuerKind
from broker.errors import Code
from broker.server.oauth.jwt_bearer import GRANT_TYPE
from broker.tools_toml import parse

PAGE = (Path(__file__).parents[1] / "docs" / "identities.md").read_text()
RECIPES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
REST = """
[broker]
issuer = "https://broker.example.com"
[backends.orders]
url      = "https://orders.internal.example.com"
audience = "https://orders.example.com"
[tools.orders_get]
backend = "orders"
action  = "orders:read"
request = "GET /orders/{order_id}"
[roles.support]
grants = [{ tools = ["orders_get"] }]
[roles.deployer]
grants = [{ tools = ["orders_get"] }]
"""


def test_all_recipes_are_one_good_catalog_with_each_kind_in_it() -> None:
    assert len(RECIPES) == 6
    catalog = parse((REST + "\n".join(RECIPES)).encode(), source="tools.toml", folder=Path("/"))
    kinds = {issuer.kind for issuer in catalog.issuers.values()}
    assert kinds == set(get_args(IssuerKind)) - {"jwt"}
    assert catalog.issuers["github"].once
    assert catalog.issuers["acme"].tenant == "acme"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.splitlines()[0])
def test_each_recipe_stands_alone(recipe: str) -> None:
    assert parse((REST + recipe).encode(), source="tools.toml", folder=Path("/")).issuers


def test_the_command_names_the_grant_and_the_table_known_codes() -> None:
    assert f"grant_type={GRANT_TYPE}\n" in PAGE
    for code in re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE):
        assert code in set(Code)
