"""Links of the project's Markdown files, and the checker of the built pages."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if "_build" not in path.parts]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.fixture(scope="module")
def check_links():
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs" / "check_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_broken_links_of_built_pages_are_found(check_links, tmp_path):
    (tmp_path / "one.html").write_text('<p id="here"><a href="two.html#there">2</a><a href="#here">1</a></p>')
    (tmp_path / "two.html").write_text('<a href="https://example.org/x">out</a><p id="there"></p>')
    assert check_links.broken(tmp_path) == []
    (tmp_path / "two.html").write_text('<a href="three.html">3</a><img src="four.png">')
    assert check_links.broken(tmp_path) == [
        "one.html: no anchor two.html#there",
        "two.html: no file four.png",
        "two.html: no file three.html",
    ]
