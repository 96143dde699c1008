"""What tables know of a run: where its model comes from, and what its stage does."""

import pytest

from obert.commands.tables import load_results
from obert.experiment.keys import RunKey
from obert.experiment.plan import Plan
from obert.tables.table17 import Table17
from tables.examples import record


@pytest.mark.parametrize(
    ("stage", "chosen", "stages"),
    [
        (
            "benchmark",
            {"recipe": "smoke_quantize@smoke_gradual"},
            ["benchmark", "export", "quantize", "downstream", "teacher"],
        ),
        ("transfer", {"method": "obert"}, ["transfer", "upstream", "upstream_teacher"]),
        ("quantize", {"recipe": "smoke_quantize@smoke_finetune"}, ["quantize", "teacher"]),
        (
            "downstream",
            {"recipe": "smoke_gradual_fewer_layers@smoke_keep_1_layer"},
            ["downstream", "upstream", "upstream_teacher"],
        ),
    ],
)
def test_history_follows_the_models_of_the_plan(root, tmp_path, stage, chosen, stages):
    plan = Plan.load("configs/smoke.yaml")
    results = load_results(plan, "configs/smoke.yaml", tmp_path)
    key = plan.find(stage, task="movie_reviews", **chosen).key
    assert [made.stage for made in results.history(key)] == stages


def test_stages_are_selected_by_what_they_do_in_the_order_of_the_plan(make_results):
    chosen = {"method": "obert", "sparsity": 0.9}
    made = [
        record("quantize", 70.0, **chosen),
        record("teacher", 80.0),
        record("upstream", 50.0, task="mlm", **chosen),
        record("export", metrics={}, **chosen),
        record("downstream", 75.0, **chosen),
    ]
    results = make_results([(one, None, 0) for one in made])

    def stages(**attributes):
        return [found.key.stage for found in results.of_kind(**attributes)]

    assert stages(on_task=True) == ["quantize", "downstream"]
    assert stages(prunes=True) == ["upstream", "downstream"]
    assert stages(prunes=True, on_task=True) == ["downstream"]
    assert stages(trains=True) == ["quantize", "teacher", "upstream", "downstream"]


def test_pattern_of_a_model_is_that_of_the_run_that_pruned_it(make_results):
    """Recipes are named without a hint: pruned upstream in blocks, transferred, quantised."""
    chosen = {"task": "squad", "method": "obert", "sparsity": 0.8}
    blocks = {"recipe": {"training": {"epochs": 1.0}, "pattern": "1x4"}}
    pruned = record("upstream", recipe="first", spec=blocks, **{**chosen, "task": "mlm"})
    transferred = record("transfer", 71.0, recipe="second", **chosen)
    quantized = record("quantize", 70.0, recipe="third", **chosen)
    export = record("export", recipe="third", metrics={}, **chosen)
    made = [pruned, transferred, quantized, export]
    origins = {quantized.key: transferred.key, transferred.key: pruned.key}
    rows = Table17().build(make_results([(one, None, 0) for one in made], origins=origins))["row"]
    assert rows.loc[rows["model"] == "third: obert", "compression"].tolist() == ["4-block and QAT"]


def test_specification_of_a_run_without_a_record_is_the_planned_one(make_results):
    missing = RunKey("downstream", "squad", "gradual", 0, "obert", 0.9)
    made = record("teacher", 80.0, task="squad")
    results = make_results([(made, None, 0)], planned=[missing], specifications={missing: {"threads": 3}})
    assert results.specification(missing) == {"threads": 3}
    assert results.specification(made.key) == made.spec
    assert results.specification(missing.at("export")) == {}
