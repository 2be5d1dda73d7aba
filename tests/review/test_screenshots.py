"""The pictures of docs/review-page.md, taken of the log of a busy day. `make screenshots` keeps them."""

import os
import re
import sys
from pathlib import Path

import anyio
import pytest
from browser import browser
from reviewing import reviewing

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150_000
SIZE = {"width": 1100, "height": 640}


def test_the_pictures_of_the_page_are_there_and_small() -> None:
    page = (ROOT / "docs" / "review-page.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\(images/([a-z-]+\.png)\)", page))
    assert named == {path.name for path in IMAGES.glob("review-*.png")}
    for name in named:
        picture = (IMAGES / name).read_bytes()
        assert picture.startswith(b"\x89PNG"), name
        assert len(picture) < MOST_BYTES, name


def where(otherwise: Path) -> Path:
    kept = os.environ.get("PICTURES")
    return Path(kept).absolute() if kept else otherwise


async def test_the_list_and_a_call_look_as_the_page_shows_them(tmp_path: Path) -> None:
    folder = where(tmp_path)
    day = tmp_path / "day"
    script = ROOT / "examples" / "day" / "demo_day.py"
    with anyio.fail_after(120):
        await anyio.run_process([sys.executable, str(script), str(day)])
    async with browser() as at:
        for scheme in ("light", "dark"):
            with reviewing(day) as running:
                await at.fresh(colorScheme=scheme, viewport=SIZE, reducedMotion="reduce")
                base = await at.login(running.address)
                await at.do("picture", path=str(folder / f"review-list-{scheme}.png"))
                await at.do("goto", url=f"{base}/?outcome=replayed")
                await at.do("click", at="#rows td:last-child a")
                assert await at.do("count", at="ol.chain li") > 3
                await at.do("picture", path=str(folder / f"review-call-{scheme}.png"))
    for each in folder.glob("review-*.png"):
        assert each.stat().st_size < MOST_BYTES, each
