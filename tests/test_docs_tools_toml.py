"""docs/tools-toml.md: its snippets are a catalog, its tables the grammar, its output what is printed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from broker.schema_rules import MAX_SCHEMAS
from broker.toml_document import MAX_DEPTH
from broker.tools_grammar import (
    AnchorSection,
    BackendSection,
    BrokerSection,
    ClientSection,
    DelegateSection,
    ExportSection,
    GrantSection,
    IssuerSection,
    ReviewSection,
    ToolSection,
    WitnessedSection,
    keys_of,
)
from broker.tools_toml import MAX_BYTES, parse
from broker.tools_values import MAX_ARGUMENTS, MAX_RESPONSE

PAGE = (Path(__file__).parents[1] / "docs" / "tools-toml.md").read_text()
SNIPPETS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PRINTED = re.findall(r"```console\n\$ broker check\n(.*?)```", PAGE, re.DOTALL)
BROKER = str(Path(sys.executable).with_name("broker"))
OWN = '[broker]\nissuer = "http://127.0.0.1:8700"\n\n'
EXAMPLE = OWN + "\n".join(SNIPPETS[:3])
MODELS: dict[str, type[BaseModel]] = {
    "[broker]": BrokerSection,
    "[issuers.NAME]": IssuerSection,
    "[backends.NAME]": BackendSection,
    "[tools.NAME]": ToolSection,
    "[roles.NAME]": GrantSection,
    "[clients.NAME]": ClientSection,
    "[exports.NAME]": ExportSection,
    "delegate": DelegateSection,
    "[anchors.NAME]": AnchorSection,
    "[witnessed.NAME]": WitnessedSection,
    "[review]": ReviewSection,
}


def rows(section: str) -> dict[str, list[str]]:
    body = PAGE.partition(f"## {section}\n")[2].partition("\n#")[0]
    cells = [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in body.splitlines() if line.startswith("| `")]
    return {cell[0].strip("`"): cell[1:] for cell in cells}


def test_all_snippets_are_one_good_catalog() -> None:
    assert len(SNIPPETS) == 14
    catalog = parse("\n".join(SNIPPETS).encode(), source="tools.toml", folder=Path("/"))
    assert set(catalog.tools) == {"orders_refund", "stock_get"}
    assert catalog.roles["auditor"].grants[0].until_s == 1893456000


@pytest.mark.parametrize("section", MODELS)
def test_every_key_is_on_the_page_with_its_default_and_no_other_is(section: str) -> None:
    model, told = MODELS[section], rows(section)
    assert list(told) == list(keys_of(model))
    for name, field in keys_of(model).items():
        assert (told[name][1] == "required") is field.is_required(), name


def test_the_defaults_of_the_page_are_those_of_the_code() -> None:
    def value(model: type[BaseModel], name: str, text: str) -> Any:
        """What the file would mean that has the default of the page in it."""
        required = {"[broker]": {"issuer": "x"}, "[backends.NAME]": {"url": "x", "audience": "x"}}
        required["[tools.NAME]"] = {"backend": "x", "action": "x", "request": "x"}
        required["[exports.NAME]"] = {"kind": "jsonl"}
        section = next(each for each, other in MODELS.items() if other is model)
        given: Any = int(text) if text.isdecimal() else text.strip('`"')
        return getattr(model.model_validate({**required[section], name: given}), name)

    checked = 0
    for section in ("[broker]", "[backends.NAME]", "[tools.NAME]", "[exports.NAME]"):
        for name, (_, default, _) in rows(section).items():
            if re.fullmatch(r'`".*"`|\d+', default):
                assert value(MODELS[section], name, default) == MODELS[section].model_fields[name].default
                checked += 1
    assert checked == 20
    issuers = rows("[issuers.NAME]")
    for name in ("algorithms", "types"):
        listed = [each.strip('"') for each in re.findall(r"`(.*?)`", issuers[name][1])]
        assert listed == IssuerSection.model_fields[name].default


def test_the_bounds_of_the_page_are_those_of_the_code() -> None:
    assert (MAX_ARGUMENTS, MAX_RESPONSE, MAX_BYTES, MAX_DEPTH) == (4 << 20, 64 << 20, 4 << 20, 64)
    assert "at most 4MiB" in PAGE
    assert "at most 64MiB" in PAGE
    assert "at most 4 MiB, and 64 levels" in PAGE
    assert f"more than {MAX_SCHEMAS} schemas" in PAGE


def check(folder: Path, text: str) -> str:
    (folder / "tools.toml").write_text(text)
    done = subprocess.run(
        [BROKER, "check"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_what_check_prints_is_what_the_page_says(tmp_path: Path) -> None:
    good, mistaken = PRINTED
    assert check(tmp_path, EXAMPLE) == good
    text = EXAMPLE.replace('backend     = "orders"', 'backend     = "order"').replace("maximum", "maximun")
    text = text.replace('whole euros."\n', 'whole euros."\nttl         = "10min"\n')
    assert check(tmp_path, text) == mistaken
