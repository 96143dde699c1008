"""The generated reference: everything that the code has is on the page, described as the code checks it."""

import argparse
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from obert.experiment.schema import Experiment

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def _extension_folder():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "_ext"))
        yield
    for name in ("schema_page", "command_page", "project_page"):
        sys.modules.pop(name, None)


class Inner(BaseModel):
    """What is inside."""

    size: int = Field(gt=0)


class Outer(BaseModel):
    """What is outside."""

    inner: Inner
    kind: Literal["a", "b"] = "a"
    shares: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = ()
    limit: int | None = Field(None, description="at most so many | none by default")
    by_name: dict[str, Inner] = {}


class Silent(Inner):
    pass


def rows(lines, section):
    """The table's cells below the heading `section`, by field."""
    lines = list(lines)
    start = next(i for i, line in enumerate(lines) if line.startswith("#") and line.endswith(f" {section}"))
    found = {}
    for line in lines[start + 1 :]:
        if line.startswith("#"):
            break
        if line.startswith("| `"):
            field, *rest = (cell.strip() for cell in line.replace(r"\|", "\0").strip("|").split("|"))
            found[field.strip("`")] = [cell.replace("\0", "|") for cell in rest]
    return found


def test_a_models_fields_with_types_defaults_and_meanings():
    import schema_page

    lines = list(schema_page.describe(Outer, "Outer", 2, set()))
    assert rows(lines, "Outer") == {
        "inner": ["[Inner](#schema-inner)", "required", ""],
        "kind": ["`a` or `b`", "`a`", ""],
        "shares": ["list of number, at least 0, below 1", "empty", ""],
        "limit": ["whole number", "none", "at most so many | none by default"],
        "by_name": ["mapping of names to [Inner](#schema-inner)", "empty", ""],
    }
    assert rows(lines, "Inner") == {"size": ["whole number, above 0", "required", ""]}
    assert "(schema-inner)=" in lines and "What is inside." in lines


def test_a_model_is_described_once_and_not_in_its_bases_words():
    import schema_page

    known = {"Inner"}
    assert "(schema-inner)=" not in list(schema_page.describe(Outer, "Outer", 2, known))
    assert "Outer" in known
    assert "What is inside." not in list(schema_page.describe(Silent, "Silent", 2, set()))


def test_every_key_of_an_experiment_is_on_the_page():
    import schema_page

    lines = list(schema_page.describe(Experiment, "Experiment", 2, set()))
    assert set(rows(lines, "Experiment")) == set(Experiment.model_fields)
    links = {link.partition(")")[0] for line in lines for link in line.split("](#")[1:]}
    assert links <= {line[1:-2] for line in lines if line.startswith("(schema-")}


def test_every_command_and_option_is_on_the_page():
    import command_page

    parser = command_page.parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    text = "\n".join(command_page.describe(parser, 2))
    for name, command in commands.choices.items():
        section = text.partition(f"## `obert {name}`")[2].partition("\n## ")[0]
        assert section
        for action in command._actions:
            assert all(f"`{option}`" in section for option in action.option_strings if option not in ("-h", "--help"))


def test_every_room_has_a_row_with_words():
    import project_page

    table = list(project_page.rooms())[2:]
    folders = {path.parent.name for path in (ROOT / "obert").glob("*/__init__.py")}
    assert {row.split("`")[1].removeprefix("obert/").strip("/") for row in table} == folders
    assert all(row.strip("| ").split("|")[1].strip() for row in table)


def test_every_dependency_is_pinned_to_what_was_tried():
    import project_page

    table = [row.strip("| ").split(" | ") for row in list(project_page.versions())[2:]]
    by_name = {name: (extra, allowed, tried) for name, extra, allowed, tried in table}
    assert by_name["torch"][0] == "always" and by_name["sphinx"][0] == "docs" and "obert" not in by_name
    assert [name for name, (*_, tried) in by_name.items() if tried == "not pinned"] in ([], ["pre-commit"])
