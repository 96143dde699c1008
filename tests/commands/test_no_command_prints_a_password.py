"""No command prints or writes the password of a tracking server or of a sweep's storage, whether it fails or not."""

import argparse
import ast
import re
from pathlib import Path

import pytest
import yaml
from tables.examples import record

from obert.commands.cli import main, parser
from obert.foundation.registry import PACKAGE
from obert.records.record import write_record
from obert.stages import stages

SECRET = "pa55w0rd"
URI = f"http://me:{SECRET}@127.0.0.1:9"
ADDRESS = re.compile(r"(?:.*_)?(?:uri|url|storage|from_mlflow)")
# What may be given an address to print: it masks passwords.
MASKING = {"UserError", "explained", "masked", "unknown_name", "only_warns"}
# What begins like this does not say it: an address of the same store, a path, and the beginning of a UserError.
NOT_SAID = (
    'address = f"{uri}?timeout=',
    'lambda a: print(_command("tables").run(',
    "with closing(sqlite3.connect(f",
    'where = f"tracking store {uri}, ',
)
PRINTING = {"print", "say", "debug", "info", "warning", "error", "exception", "write", "write_text"}


def commands():
    (choices,) = (action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return sorted(choices)


@pytest.fixture
def experiment(config, monkeypatch, tmp_path):
    """The experiment's file. What takes long, or the network, is not done."""
    made = record("teacher", 90.0)
    for stage in stages():
        monkeypatch.setattr(type(stage), "run", lambda self, planned: write_record(planned.folder, made) and made)
    monkeypatch.setattr("obert.commands.assets.run", lambda name: print(name))
    monkeypatch.setattr("obert.commands.environment.run", lambda name: print(name))
    monkeypatch.setattr("obert.commands.recipe.run", lambda plan, config, **_: f"{config}: {plan.experiment.name}")
    return config(tracking_uri=URI)


def arguments_of(command, experiment, root, tmp_path):
    """Arguments that let a command do what it is for."""
    if command == "sweep":
        content = yaml.safe_load(next((root / "configs/sweeps").glob("smoke*.yaml")).read_text(encoding="utf-8"))
        path = tmp_path / "sweep.yaml"
        path.write_text(
            yaml.safe_dump(content | {"experiment": experiment, "storage": f"postgresql://me:{SECRET}@h/x"})
        )
        return ["--config", str(path)]
    more = {
        "recipe": ["--task", "movie_reviews", "--sparsity", "0.9"],
        "push": [str(tmp_path / "none"), "me/model"],
        "tables": ["--from-mlflow", URI],
        "teacher": ["--task", "movie_reviews"],
        "compress": ["--task", "movie_reviews", "--max-drop", "1"],
    }
    return ["--config", experiment, *more.get(command, [])]


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
@pytest.mark.parametrize("command", commands())
def test_no_command_prints_or_writes_it(command, experiment, root, tmp_path, capfd):
    assert main([command, *arguments_of(command, experiment, root, tmp_path)]) in (0, 2)
    said = capfd.readouterr()
    assert said.out + said.err or command in ("assets", "environment")  # of which this experiment needs none
    assert SECRET not in said.out + said.err
    if command in ("track", "tables", "teacher", "prepare", "check", "summary"):
        assert "http://me:***@127.0.0.1:9" in said.out + said.err
    for file in (tmp_path / "results").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


@pytest.mark.parametrize("uri", [f"sqlite://me:{SECRET}@host/x", f"file://me:{SECRET}@host/x"])
def test_an_address_that_is_refused_is_told_without_it(uri, config, capsys):
    assert main(["track", "--config", config(tracking_uri=uri)]) == 2
    said = capsys.readouterr().err
    assert SECRET not in said and "tracking_uri" in said


def test_the_report_holds_none(experiment, capsys):
    assert main(["tables", "--config", experiment]) == 0
    report = Path(capsys.readouterr().out.strip())
    assert not [
        file for file in report.parent.iterdir() if SECRET in file.read_text(encoding="utf-8", errors="replace")
    ]


def holds_an_address(node):
    """Whether a node names an address, other than inside of a call that masks it."""
    if isinstance(node, ast.Call) and called(node) in MASKING:
        return False
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return bool(ADDRESS.fullmatch(name)) or any(map(holds_an_address, ast.iter_child_nodes(node)))


def called(node):
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def unmasked(tree):
    """Lines that put an address into a text or print it, outside of what masks passwords."""
    found = []

    def visit(node):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if called in MASKING:
                return
            printed = called in (
                "print",
                "say",
                "debug",
                "info",
                "warning",
                "error",
                "exception",
                "write",
                "write_text",
            )
            if printed and any(holds_an_address(argument) for argument in node.args):
                found.append(node.lineno)
        if isinstance(node, ast.JoinedStr) and holds_an_address(node):
            found.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def test_every_place_that_says_an_address_masks_it():
    """A new one is found here: let it mask the address, or name it below if it only makes an address of another."""
    lines = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for number in unmasked(ast.parse(text)):
            lines[text.splitlines()[number - 1].strip()] = path.relative_to(PACKAGE).as_posix()
    assert {place for place in lines.items() if not place[0].startswith(NOT_SAID)} == set()
