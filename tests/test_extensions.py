"""Extensions from outside: the example package, installed, is on the leaderboard with no change in the project."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from obert.commands.cli import main
from obert.contracts import check_method
from obert.experiment.plan import Plan
from obert.experiment.recipes import load_recipe
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.records.record import Record, write_record
from obert.sweeps.search import load_sweep

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "my_method"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
METHODS = ["magnitude", "obert", "taylor"]


def installed_in(folder: Path) -> Path:
    """The example as pip installs it: its modules, and what its pyproject.toml says as a dist-info folder."""
    about, modules = PROJECT["project"], PROJECT["tool"]["setuptools"]["py-modules"]
    information = folder / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    information.mkdir(parents=True)
    for module in modules:
        shutil.copy(EXAMPLE / f"{module}.py", folder)
    metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    (information / "METADATA").write_text(metadata)
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in of_group.items())
        for group, of_group in about["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(points))
    return folder


@pytest.fixture
def example(tmp_path, monkeypatch, root):
    """The example package, installed for this test."""
    monkeypatch.syspath_prepend(str(installed_in(tmp_path / "site")))
    registry.refresh()
    yield registry.load("pruning", "taylor")
    sys.modules.pop("my_method", None)
    registry.use_folder(None)
    registry.refresh()


def test_the_method_is_there_and_keeps_the_contract(example):
    assert "taylor" in registry.names("pruning")
    assert registry.source_file("pruning", "taylor").read_text() == (EXAMPLE / "my_method.py").read_text()
    check_method(example)


def test_the_examples_own_tests_pass(tmp_path):
    site = installed_in(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (site, ROOT)))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_without_the_package_the_name_is_unknown(root):
    registry.refresh()
    with pytest.raises(UserError, match="unknown pruning method 'taylor'"):
        registry.require("pruning", "taylor")


def test_the_examples_experiment_is_planned(example):
    plan = Plan.load(EXAMPLE / "experiment.yaml")
    assert sorted(run.key.method for run in plan.of_stage("downstream")) == METHODS
    (run,) = (run for run in plan.of_stage("downstream") if run.key.method == "taylor")
    assert type(run.method).__name__ == "FirstOrderTaylor"
    assert run.method.num_gradients == 32


def test_recipes_of_the_experiments_folder(example, tmp_path):
    with pytest.raises(UserError, match="unknown recipe 'taylor_one_shot'"):
        load_recipe("taylor_one_shot")
    registry.use_folder(EXAMPLE)
    assert load_recipe("taylor_one_shot").methods["taylor"] == {"num_gradients": 32, "gradient_batch_size": 16}
    assert load_recipe("one_shot").methods.keys() == {"obert"}
    with pytest.raises(UserError, match="Did you mean 'taylor_one_shot'"):
        load_recipe("taylor_one_shoot")


def test_a_recipe_that_is_there_twice_is_refused(root, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "one_shot.yaml").write_text("stage: downstream\n")
    registry.use_folder(tmp_path)
    try:
        with pytest.raises(UserError, match=r"recipe 'one_shot' is there twice: .*recipes/one_shot\.yaml and configs/"):
            load_recipe("one_shot")
    finally:
        registry.use_folder(None)


def test_a_method_of_the_experiments_folder_is_planned(root, tmp_path):
    (tmp_path / "pruning").mkdir()
    shutil.copy(EXAMPLE / "my_method.py", tmp_path / "pruning" / "taylor.py")
    shutil.copytree(EXAMPLE / "recipes", tmp_path / "recipes")
    content = yaml.safe_load((EXAMPLE / "experiment.yaml").read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content | {"extensions": str(tmp_path)}))
    try:
        plan = Plan.load(tmp_path / "mine.yaml")
        assert sorted(run.key.method for run in plan.of_stage("downstream")) == METHODS
    finally:
        registry.use_folder(None)


STAGE = """
from obert.stages import MODEL, Stage
from obert.experiment.schema import OnTasks

class Count(Stage):
    \"\"\"Count what is there.\"\"\"

    after = ("teacher",)
    block = OnTasks

    def plan(self, plan):
        for block in self.blocks(plan.experiment):
            for run in plan.of_stage("teacher"):
                yield run.key.at(self.name), {MODEL: run}

    def run(self, planned):
        from obert.records.record import Score
        from obert.records.recording import Recording

        return Recording(planned).finish(threads=1, files=(), metrics={"files": Score(value=2, count=1)})
"""


@pytest.fixture
def with_stage(root, tmp_path, monkeypatch, uri):
    """Writes a stage into the folder of an experiment, and gives the experiment's file."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")

    def write(text: str, blocks: dict) -> str:
        (tmp_path / "stages").mkdir()
        (tmp_path / "stages" / "count.py").write_text(text)
        content = yaml.safe_load((ROOT / "configs/smoke.yaml").read_text(encoding="utf-8"))
        added = {"extensions": str(tmp_path), "stages": blocks, "tracking_uri": uri}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content | added))
        return str(tmp_path / "mine.yaml")

    yield write
    registry.use_folder(None)


def test_a_stage_of_the_experiments_folder_is_a_command(with_stage, capsys):
    config = with_stage(STAGE, {"count": [{}]})
    (source, _) = Plan.load(config).of_stage("teacher")
    registry.use_folder(None)
    fields = {"experiment": "smoke", "spec": {}, "spec_hash": "", "code_hash": "", "environment": {}, "threads": 1}
    fields |= {"started_at": "2026-01-01T00:00:00Z", "wall_time_seconds": 1.0, "peak_memory_mb": 1.0}
    write_record(source.folder, Record(key=source.key, **fields))
    assert main(["count", "--config", config, "--task", source.key.task]) == 0
    assert "files 2.00 (n=1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "blocks", "expected"),
    [
        ("Count(Stage)", "Count", [], "exactly one subclass of Stage"),
        ("def run(", "def rnu(", [], r"stage 'count' \(.*count\.py\) lacks run"),
        (
            '("teacher",)',
            '("techer",)',
            [],
            "unknown stage 'techer' in 'after' of stage 'count'",
        ),
        ('("teacher",)', '("count",)', [], "stages wait for one another: count -> count"),
        ("block = OnTasks", "block = Stage", [], "must be a subclass of OnTasks"),
        (
            "block = OnTasks",
            "blocks = lambda self, experiment: ()",
            [{}],
            r"stages\.count: stage count takes no blocks here",
        ),
    ],
)
def test_a_stage_that_is_not_whole_is_one_message(with_stage, capsys, old, new, blocks, expected):
    assert old in STAGE
    config = with_stage(STAGE.replace(old, new), {"count": blocks})
    assert main(["summary", "--config", config]) == 2
    assert re.search(expected, capsys.readouterr().err)


def test_blocks_of_the_projects_own_stages_stand_elsewhere(with_stage):
    with pytest.raises(UserError, match=r"stages\.downstream: stage downstream takes no blocks here"):
        Plan.load(with_stage(STAGE, {"downstream": [{"recipes": ["smoke_one_shot"], "sparsities": [0.5]}]}))


def test_a_sweep_knows_the_stages_of_its_experiments_folder(with_stage, tmp_path):
    content = {"name": "s", "description": "", "experiment": with_stage(STAGE, {}), "count": {}, "recipe": "swept"}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content | {"space": {"training.epochs": {"values": [1]}}}))
    with pytest.raises(UserError, match="count: its blocks name no recipe"):
        load_sweep(tmp_path / "sweep.yaml")


def run(folder: Path, site: Path, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (site, ROOT)))}
    command = [sys.executable, "-m", "obert", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_method_is_on_the_leaderboard_with_no_change_in_the_project(tmp_path):
    content = yaml.safe_load((EXAMPLE / "experiment.yaml").read_text(encoding="utf-8"))
    del content["extensions"]
    settings = {"taylor": {"num_gradients": 32, "gradient_batch_size": 16}}
    content["recipe_overrides"] = {"movie_reviews": {"smoke_one_shot": {"methods": settings}}}
    content["downstream"][0] |= {"recipes": ["smoke_one_shot"], "methods": ["magnitude", "taylor"]}
    site, folder = installed_in(tmp_path / "site"), tmp_path / "work"
    for part in ("configs", "tests/data"):
        shutil.copytree(ROOT / part, folder / part)
    (folder / "installed.yaml").write_text(yaml.safe_dump(content))
    run(folder, site, "teacher", "--config", "installed.yaml", "--task", "movie_reviews")
    for method in ("magnitude", "taylor"):
        run(folder, site, "downstream", "--config", "installed.yaml", "--method", method)
    run(folder, site, "tables", "--config", "installed.yaml")
    board = pd.read_csv(folder / "results" / "tables" / "my_method" / "leaderboard.csv").set_index("method")
    assert set(board.index) == {"dense", "magnitude", "taylor"}
    assert board.loc[["magnitude", "taylor"], "rank"].notna().all()
    assert board.loc["taylor", "sparsity_measured"] == 0.5
