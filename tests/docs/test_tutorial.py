"""The tutorial as a newcomer follows it, and a how-to page that is a whole example: every command, in a copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import Command, File, agrees, blocks
from copied import copy_project

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = ("tutorial/first_run", "tutorial/own_model", "tutorial/own_data", "tutorial/own_method")
PAGES = (*TUTORIAL, "howto/add_stage")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What a clone holds of what the tutorial needs."""
    return copy_project(tmp_path_factory.mktemp("clone") / "obert", "examples")


def test_every_page_of_the_tutorial_is_run():
    assert {f"tutorial/{page.stem}" for page in (DOCS / "tutorial").glob("*.md")} == {"tutorial/index", *TUTORIAL}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_pages_commands_do_what_it_says(page, clone):
    steps = blocks(DOCS / f"{page}.md")
    assert sum(isinstance(step, Command) for step in steps) >= 2
    for step in steps:
        if isinstance(step, File):
            path = clone / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.content, encoding="utf-8")
        else:
            check(step, clone)


def check(command: Command, clone: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(clone),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        command.line, shell=True, cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"{command.line}\n{printed}"
    assert agrees(command.output, printed), f"{command.line}\nshown:\n{command.output}\nprinted:\n{printed}"
