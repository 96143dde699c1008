"""SMC-Bench's recipes on a tiny model: embeddings and head in scope, questions with choices, a tied table of tokens."""

import json

import pytest
import questions_with_choices
from planned import made, results_in

from obert.experiment.plan import Plan

SOURCES = {"commonsense_qa": "csqa", "winogrande": "winogrande"}
# 64 questions are few updates an epoch: events and gradients as often as that allows
OVERRIDES = {
    "commonsense_qa": {
        "smc_gmp_csqa": {"schedule": {"every_steps": 4}},
        "smc_rigl_csqa": {"schedule": {"every_steps": 4}},
        "smc_obert_csqa": {"methods": {"obd": {"num_gradients": 4}}},
    },
    "winogrande": {"smc_rigl_winogrande": {"schedule": {"every_steps": 8}}},
}
RUNS = [
    ("commonsense_qa", "smc_gmp_csqa"),
    ("commonsense_qa", "smc_lth_csqa"),
    ("commonsense_qa", "smc_obert_csqa"),
    ("commonsense_qa", "smc_rigl_csqa"),
    ("commonsense_qa", "smc_snip_csqa"),
    ("winogrande", "smc_rigl_winogrande"),
    ("winogrande", "smc_snip_winogrande"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def plan(root, monkeypatch, results, tmp_path):
    results_in(results, monkeypatch)
    tasks = {}
    for name in SOURCES:
        (tmp_path / name).mkdir()
        tasks[name] = {"source": str(questions_with_choices.write(name, tmp_path / name)), "max_length": 96}
    content = {
        "name": "smc",
        "description": "SMC-Bench.",
        "model": {"source": "tests/data/tiny_bert"},
        "tasks": tasks,
        "teacher": "smoke_finetune",
        "downstream": [
            {"recipes": [recipe for of, recipe in RUNS if of == task], "tasks": [task], "sparsities": [0.36]}
            for task in SOURCES
        ],
        "recipe_overrides": OVERRIDES,
    }
    path = tmp_path / "smc.yaml"
    path.write_text(json.dumps(content))
    return Plan.load(path)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "recipe"), RUNS)
def test_a_recipe_runs_and_ends_at_its_sparsity(plan, task, recipe):
    (run,) = (run for run in plan.of_stage("downstream") if (run.key.task, run.key.recipe) == (task, recipe))
    for source in run.made_from:
        made(source)
    record = made(run)
    counted = record.sparsity.layers.values()
    zeros, wanted = sum(c.zeros for c in counted), round(0.36 * sum(c.size for c in counted))
    assert zeros == wanted or (run.key.method == "rigl" and zeros > wanted)  # what has just grown may still be zero
    assert any("embeddings" in name for name in record.sparsity.layers)
    in_head = [name for name in record.sparsity.layers if not name.startswith("bert.en") and "embeddings" not in name]
    assert bool(in_head) == (task == "commonsense_qa")
    events = record.details["events"]
    # Gradual pruning starts with an event that prunes nothing.
    assert len(events) == {"magnitude": 4, "lottery_ticket": 2, "rigl": 5}.get(run.key.method, 1)
    assert record.costs["optimizer_steps"] == {"smc_lth_csqa": 59}.get(recipe, 20 if task == "commonsense_qa" else 38)
