"""The table of scaling rules: what is a row, and what it is compared with; and the figure of scaled schedules."""

from types import SimpleNamespace

import pandas as pd
import pytest

from obert.experiment.scaling import Scaling as Rule
from obert.tables._schedules import COLUMNS as CURVES
from obert.tables._schedules import LABELS, draw_schedules
from obert.tables.scaling import Scaling
from tables.examples import record

DENSITY = {"unit_epochs": 2, "cycles": {"density": 0.2}}
LONGEST = DENSITY | {"equal_compute": {"length": "longest", "of": [0.5, 0.9]}}
MEAN = DENSITY | {"equal_compute": {"length": "mean", "of": [0.5, 0.9]}}
TAUGHT = {"hardness": 1.0, "temperature": 2.0}


def run(value, recipe, sparsity, scaling=None, epochs=2.0, seed=0, rewinds=(), collapsed=False, **more):
    content = {"training": {"epochs": epochs, "learning_rate": {"initial": 1e-4, "rewind_epochs": list(rewinds)}}}
    if scaling is not None:
        content["scaling"] = Rule.model_validate(scaling).model_dump(mode="json")
    made = record(
        "downstream",
        value,
        recipe=recipe,
        method="magnitude",
        sparsity=sparsity,
        seed=seed,
        spec={"recipe": content | more},
        details={"collapsed": collapsed},
    )
    return made, None, 0


@pytest.fixture
def content(make_results):
    """By density: ln(1 - s) / ln(0.8) is 3.1 at 50 % and 10.3 at 90 %, so 5 and 12 cycles; 8.5 on average, which is 8
    to the nearest even number."""
    runs = [
        run(50.0, "plain", 0.9, collapsed=True),
        run(60.0, "plain", 0.9, seed=1),
        run(80.0, "scaled", 0.5, DENSITY, epochs=10.0),
        run(70.0, "scaled", 0.9, DENSITY, epochs=24.0),
        run(72.0, "scaled", 0.9, DENSITY, epochs=24.0, seed=1),
        run(84.0, "longest", 0.5, LONGEST, epochs=24.0),
        run(66.0, "mean", 0.9, MEAN, epochs=16.0),
        run(75.0, "taught", 0.9, DENSITY, epochs=24.0, distillation=TAUGHT),
        run(65.0, "wide", 0.9, DENSITY, epochs=24.0, scope={"encoder": True, "embeddings": "own", "head": False}),
    ]
    return Scaling().build(make_results([(record("teacher", 90.0), None, 0), *runs]))


def test_a_row_is_a_rule_at_a_sparsity(content):
    alike = content[(content["scope"] == "encoder") & (content["distillation"] == "none")]
    columns = ["rule", "sparsity", "recipe", "cycles", "epochs", "mean", "n"]
    assert alike[columns].to_numpy().tolist() == [
        ["constant 1", 0.9, "plain", 1, 2.0, 55.0, 2],
        ["density 0.2", 0.5, "scaled", 5, 10.0, 80.0, 1],
        ["density 0.2", 0.9, "scaled", 12, 24.0, 71.0, 2],
        ["density 0.2, equal compute (longest)", 0.5, "longest", 12, 24.0, 84.0, 1],
        # 12 cycles are what the rule itself gives at 90 %: the same runs
        ["density 0.2, equal compute (longest)", 0.9, "scaled", 12, 24.0, 71.0, 2],
        ["density 0.2, equal compute (mean)", 0.9, "mean", 8, 16.0, 66.0, 1],
    ]


def test_other_scopes_and_distillation_are_apart(content):
    others = content[["recipe", "scope", "distillation"]].to_numpy().tolist()
    assert ["taught", "encoder", "h = 1, T = 2"] in others
    assert ["wide", "+ embeddings", "none"] in others
    assert len(content) == 8


def test_a_row_has_its_cost_and_its_collapsed_runs(content):
    shown = Scaling().display(content).set_index("recipe").loc["plain"]
    assert (shown["steps"], shown["hours"]) == ("30", "0.003")  # of 10 s of training and 2 s of pruning
    assert shown["score"] == "55.00 ± 7.07 (n=2)"
    assert shown["collapsed"] == "1 of 2"


def test_a_plain_schedule_has_the_cycles_of_its_learning_rate(make_results):
    found = Scaling().build(make_results([run(50.0, "plain", 0.9, rewinds=(2, 4, 6, 8), epochs=10.0)]))
    assert found[["rule", "cycles"]].to_numpy().tolist() == [["constant 5", 5]]


def test_cycles_of_a_table_stand_with_their_control_behind_them(make_results):
    """The control of 50 and 90 % trains as long as 90 %, whose runs are those of the table itself."""
    table = {"unit_epochs": 2, "cycles": {"table": {0.5: 5, 0.9: 12}}}
    longest = table | {"equal_compute": {"length": "longest", "of": [0.5, 0.9]}}
    runs = [
        run(84.0, "longest", 0.5, longest, epochs=24.0),
        run(70.0, "scaled", 0.9, table, epochs=24.0),
        run(80.0, "scaled", 0.5, table, epochs=10.0),
        run(60.0, "plain", 0.9),
    ]
    found = Scaling().build(make_results(runs))
    assert found[["rule", "sparsity", "cycles"]].to_numpy().tolist() == [
        ["constant 1", 0.9, 1],
        ["table", 0.5, 5],
        ["table", 0.9, 12],
        ["table, equal compute (longest)", 0.5, 12],
        ["table, equal compute (longest)", 0.9, 12],
    ]


def test_it_is_made_where_a_schedule_scales():
    plain = SimpleNamespace(recipe=SimpleNamespace(scaling=None))
    scaled = SimpleNamespace(recipe=SimpleNamespace(scaling=DENSITY))
    assert not Scaling.concerns([plain, SimpleNamespace(recipe=None)])
    assert Scaling.concerns([plain, scaled])


def test_shorter_runs_are_drawn_over_the_longer_ones_that_begin_like_them():
    parts = []
    for target, epochs in ((0.5, 4), (0.7, 8), (0.9, 12)):
        part = pd.DataFrame({"epoch": range(epochs + 1), "sparsity": target, "learning_rate": 1e-4})
        parts.append(part.assign(task="task", recipe="scaled", method="magnitude", target=target))
    axes = draw_schedules(pd.concat(parts)[list(CURVES)], LABELS).axes
    for axis in axes:
        assert [line.get_xdata().max() for line in axis.lines] == [12, 8, 4]
    assert [line.get_markevery() for line in axes[1].lines] == [[-1]] * 3
