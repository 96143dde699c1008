"""The plan: specifications that stay, ancestry as data, and a stage in one file."""

import json
from pathlib import Path

import pytest

from obert.experiment.keys import RunKey
from obert.experiment.plan import Plan
from obert.foundation.files import json_hash
from obert.records.record import Record
from obert.stages import stages

BEFORE = json.loads((Path(__file__).parent / "specifications.json").read_text(encoding="utf-8"))
BY_RECIPE = ("configs/how_to_prune.yaml",)  # so many runs that those of a recipe on a task share a line


def lines_of(config: str) -> dict[str, str]:
    """What `specifications.json` says of a configuration."""
    lines = {run.key.path.as_posix(): run.specification_hash[:12] for run in Plan.load(config)}
    if config not in BY_RECIPE:
        return lines
    shared: dict[str, dict[str, str]] = {}
    for path, digest in lines.items():
        shared.setdefault(path.rsplit("/", 2)[0], {})[path] = digest
    return {recipe: json_hash(own)[:12] for recipe, own in shared.items()}


@pytest.mark.parametrize("config", BEFORE)
def test_specifications_are_those_of_the_configurations_when_they_were_last_changed(root, config):
    """A run whose specification changes is made anew: a change of the planner alone must change none.

    `specifications.json` has the first 12 digits of each run's hash, as the planner before this one had them. Whoever
    changes a configuration on purpose changes its lines.
    """
    assert lines_of(config) == BEFORE[config]


def test_every_configuration_is_covered(root):
    paths = {path.as_posix() for path in Path("configs").glob("*.yaml")}
    assert set(BEFORE) == paths - {"configs/published.yaml"}


def test_stages_come_behind_those_that_their_runs_are_made_from(root):
    order = [stage.name for stage in stages()]
    for run in Plan.load("configs/smoke.yaml"):
        for source in run.made_from:
            assert order.index(source.stage.name) < order.index(run.stage.name)


def test_what_a_run_starts_from_is_in_its_lineage(root):
    for run in Plan.load("configs/smoke.yaml"):
        model = run.sources.get("model")
        if model is not None and run.stage.trains and run.key.origin:
            assert run.key.origin == model.key.lineage


def test_parameters_of_a_method_stand_where_it_prunes_alone(root):
    """Training that holds a pattern would be made anew, and its record say what nothing was pruned with."""
    runs = [run for run in Plan.load("configs/smoke.yaml") if run.key.method is not None and run.stage.trains]
    assert {run.stage.name for run in runs} >= {"upstream", "transfer", "downstream", "quantize"}
    for run in runs:
        assert ("method" in run.specification) == run.stage.prunes, run.key.path


def test_records_hold_the_lineage_as_a_label():
    key = RunKey("quantize", "sst2", ("quantize", "transfer", "upstream"), 0, "obert", 0.9)
    fields = {"experiment": "e", "spec": {}, "spec_hash": "", "code_hash": "", "environment": {}, "threads": 1}
    fields |= {"started_at": "2026-01-01T00:00:00Z", "wall_time_seconds": 1.0, "peak_memory_mb": 1.0}
    text = Record(key=key, **fields).model_dump_json()
    assert json.loads(text)["key"] == {
        "stage": "quantize", "task": "sst2", "recipe": "quantize@transfer@upstream", "seed": 0, "method": "obert",
        "sparsity": 0.9,
    }  # fmt: skip
    assert Record.model_validate_json(text).key == key
    assert key.path.as_posix() == "quantize/sst2/quantize@transfer@upstream/obert-0.9/seed0"
