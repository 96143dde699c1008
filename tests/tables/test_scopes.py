"""Tables of scopes, from hand-made records: which runs pair up, and the numbers of each part."""

import math
from dataclasses import replace

import pytest

from obert.masks.counts import LayerSparsity, Sparsity
from obert.records.record import COMPONENTS, Score
from obert.tables._scopes import NEEDED, scope_name
from obert.tables.accuracy_vs_sparsity import AccuracyVsSparsity
from obert.tables.components import Components
from obert.tables.leaderboard_over_tasks import LeaderboardOverTasks
from obert.tables.pareto_sparsity import ParetoSparsity
from obert.tables.scope_ablation import EQUAL_ENCODER, EQUAL_ZEROS, SAME_TARGET, ScopeAblation
from tables.examples import DENSE_RECIPE, record

SIZES = {"encoder": 8000, "embeddings": 1940, "head": 60}
TRAINING = {"epochs": 2.0, "learning_rate": {"initial": 1e-4, "rewind_epochs": []}}
OWN = {"embeddings": "own", "head": "own"}
TASK = "movie_reviews"


def zeros_of(fractions):
    parts = {part: LayerSparsity(zeros=round(fractions.get(part, 0) * n), size=n) for part, n in SIZES.items()}
    whole = sum(x.zeros for x in parts.values()) / sum(SIZES.values())
    return {"encoder": parts["encoder"].zeros / SIZES["encoder"], "whole_model": whole, "parts": parts}


def pruned(recipe, target, right, scope=None, fractions=None, seed=0, method="magnitude", details=None, **changes):
    """A run that judges `right` of four examples rightly; `fractions` are the zeros of parts, by default the target."""
    scope = {"encoder": True, "embeddings": False, "head": False} | (scope or {})
    counted = zeros_of(fractions or {part: target for part in SIZES if scope[part]})
    layers = {part: counted["parts"][part] for part in SIZES if scope[part]}
    spec = {"recipe": {"training": TRAINING} | changes}
    if scope["embeddings"] or scope["head"]:
        spec["recipe"]["scope"] = scope
    sparsity = Sparsity(target=target, measured=target, layers=layers, **counted)
    chosen = {"recipe": recipe, "method": method, "sparsity": target, "seed": seed, "details": details or {}}
    made = record("downstream", 25.0 * right, spec=spec, **chosen).model_copy(update={"sparsity": sparsity})
    return made, [100] * right + [0] * (4 - right), 0


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        (None, "encoder"),
        ({"encoder": "own"}, "encoder"),
        ({"embeddings": "own"}, "+ embeddings"),
        ({"embeddings": True}, "+ embeddings, one cut"),
        ({"embeddings": 0.5}, "+ embeddings at 50 %"),
        ({"head": "own"}, "+ head"),
        ({"encoder": 0.8, "head": True}, "+ head, encoder at 80 %"),
        (OWN, "all"),
        ({"embeddings": True, "head": True}, "all, one cut"),
        ({"embeddings": 0.25, "head": True}, "all, embeddings at 25 %, one cut"),
        ({"encoder": False, "embeddings": True}, "embeddings"),
        ({"encoder": False, "embeddings": True, "head": True}, "embeddings and head, one cut"),
    ],
)
def test_a_scope_is_named_by_what_the_specification_says(scope, name):
    assert scope_name({} if scope is None else {"scope": scope}) == name


def test_runs_pair_up_by_what_was_measured_and_by_setting(make_results):
    """All at 50 % has 5000 zeros of 10000, as the encoder alone at 62.5 %; the other setting and method stay apart."""
    runs = [
        pruned("a", 0.5, 3),
        pruned("a", 0.625, 2),
        pruned("b", 0.5, 1, OWN),
        pruned("c", 0.5, 4, {"head": "own"}),
        pruned("one_cut", 0.5, 2, {"embeddings": True, "head": True}, {"encoder": 0.55, "embeddings": 0.31}),
        pruned("other", 0.5, 4, OWN, training=TRAINING | {"epochs": 9.0}),
        pruned("b", 0.5, 4, OWN, method="random"),
    ]
    found = ScopeAblation().build(make_results(runs))
    rows = [
        tuple(row) for row in found[["comparison", "scope", "sparsity_target", "difference"]].itertuples(index=False)
    ]
    nan = pytest.approx(math.nan, nan_ok=True)
    assert rows == [
        (EQUAL_ENCODER, "encoder", 0.5, nan),
        (EQUAL_ENCODER, "all", 0.5, -50.0),
        (EQUAL_ENCODER, "+ head", 0.5, 25.0),
        (EQUAL_ZEROS, "encoder", 0.5, nan),
        (EQUAL_ZEROS, "+ head", 0.5, 25.0),  # the head is 0.6 % of the weights
        (EQUAL_ZEROS, "encoder", 0.625, nan),
        (EQUAL_ZEROS, "all", 0.5, -25.0),
        (EQUAL_ZEROS, "all, one cut", 0.5, 0.0),
        (SAME_TARGET, "encoder", 0.5, nan),
        (SAME_TARGET, "all, one cut", 0.5, -25.0),
    ]
    assert found["recipe"].tolist().count("other") == 0
    assert found["difference_low"].notna().sum() == found["difference"].notna().sum() == 6
    assert found.loc[found["scope"] == "all", "whole_model_sparsity"].tolist() == [0.5, 0.5]
    shown = ScopeAblation().display(found)
    assert shown["whole model %"].tolist()[:2] == ["40.00", "50.00"]
    lines = ScopeAblation().notes(make_results(runs))[0].lines
    assert lines == ("50 %: 62.5 %",)


def test_schedules_that_scale_share_a_setting_through_their_rule(make_results):
    def scaled(sparsity):
        rate = {"initial": 1e-4, "rewind_epochs": [10 * sparsity]}
        training = {"epochs": 20 * sparsity, "learning_rate": rate}
        return {"training": training, "schedule": {"end_epoch": sparsity}, "scaling": {"unit_epochs": 1}}

    runs = [pruned("a", 0.625, 2, **scaled(0.625)), pruned("b", 0.5, 1, OWN, **scaled(0.5))]
    found = ScopeAblation().build(make_results(runs))
    assert found["comparison"].tolist() == [EQUAL_ZEROS] * 2
    runs = [pruned("a", 0.625, 2, **scaled(0.625)), pruned("b", 0.5, 1, OWN, **scaled(0.5) | {"scaling": None})]
    assert ScopeAblation().build(make_results(runs)).empty


def test_collapsed_runs_are_counted_and_seeds_averaged(make_results):
    details = [{"collapsed": True}, {"collapsed": False}]
    runs = [pruned("a", 0.5, 3, seed=seed) for seed in (0, 1)]
    runs += [pruned("b", 0.5, 1 + seed, OWN, seed=seed, details=details[seed]) for seed in (0, 1)]
    found = ScopeAblation().build(make_results(runs))
    assert found[["score_mean", "n", "collapsed", "judged"]].to_numpy().tolist()[1] == [37.5, 2, 1, 2]
    assert found["score_std"].tolist()[1] == pytest.approx(17.6777, abs=1e-4)
    assert "1 of 2" in ScopeAblation().display(found)["collapsed"].tolist()


def exported(gzip, fractions, **chosen):
    costs = {"encoder": 8000 * 128, "embeddings": 0, "head": 60, "products": 1000}
    details = {COMPONENTS: {"length": 128, "multiply_adds": costs, "gzip_bytes": dict.fromkeys(SIZES, gzip)}}
    counted = zeros_of(fractions)
    sparsity = Sparsity(target=0.5, measured=0.5, layers={"w": counted["parts"]["encoder"]}, **counted)
    made = record("export", details=details, **chosen)
    return made.model_copy(update={"sparsity": sparsity}), None, 0


def timed(milliseconds, interval, **chosen):
    metrics = {"onnxruntime_throughput": 1.0, "onnxruntime_latency_p50_ms": milliseconds, "onnxruntime_speedup": 1.5}
    details = {"engines": {"onnxruntime": {"speedup_interval": interval}}}
    metrics = {name: Score(value=value, count=20) for name, value in metrics.items()}
    return record("benchmark", metrics=metrics, details=details, **chosen), None, 0


def test_components_hold_the_costs_of_each_part_and_the_change_of_pruning_it(make_results):
    """Embeddings at 50 % with an encoder at 50 % are 4970 zeros, within the tolerance of 4950."""
    chosen = {"recipe": "b", "method": "magnitude", "sparsity": 0.5}
    runs = [
        (record("teacher", 100.0), None, 0),
        exported(7e6, {}, recipe=DENSE_RECIPE),
        pruned("a", 0.5, 3),
        pruned("a", 0.61875, 4),
        pruned("b", 0.5, 2, {"embeddings": "own"}),
        exported(5e6, {"encoder": 0.5, "embeddings": 0.5}, **chosen),
        timed(4.0, [1.4, 1.6], **chosen),
    ]
    found = Components().build(make_results(runs))
    assert found["part"].tolist() == ["encoder", "embeddings", "head", "encoder", "embeddings", "encoder"]
    assert found["sparsity"].tolist() == [0, 0, 0, 0.5, 0.5, 0.61875]
    dense, embeddings = found.iloc[0], found.iloc[4]
    assert dense[["parameters", "multiply_adds", "length"]].tolist() == [8000, 1024000, 128]
    assert dense["share"] == 1024000 / 1024060
    assert dense[["dense_mb", "int8_mb", "gzip_mb"]].tolist() == [0.032, 0.008, 7.0]
    assert dense["bitmap_mb"] == 0.033  # a bit for each weight, which saves nothing yet
    assert embeddings["bitmap_mb"] == pytest.approx((1940 / 8 + 4 * 970) / 1e6)
    assert embeddings["remaining_share"] == 970 / 5030 and dense["remaining_share"] == 0.8
    assert embeddings["part_sparsity"] == 0.5 and embeddings["gzip_mb"] == 5.0 and embeddings["share"] == 0
    changes = ["encoder_change", "encoder_change_n", "zeros_change", "zeros_change_n", "zeros_target"]
    assert embeddings[changes].tolist() == [-25.0, 1, -50.0, 1, 0.61875]
    assert embeddings["encoder_change_low"] <= -25 <= embeddings["encoder_change_high"]
    speeds = ["onnxruntime_latency_p50_ms", "onnxruntime_speedup", "onnxruntime_speedup_low"]
    assert embeddings[speeds].tolist() == [4.0, 1.5, 1.4]
    shown = Components().display(found).iloc[4]
    assert (
        shown["change at equal zeros"].endswith("(n=1) (61.875 %)")
        and shown["onnxruntime speed-up"] == "1.50 [1.40, 1.60]"
    )
    assert "0.001 M" in Components().notes(make_results(runs))[0].text


def test_older_exports_without_costs_are_read(make_results):
    teacher = record("export", recipe=DENSE_RECIPE)
    counted = zeros_of({})
    old = teacher.model_copy(
        update={"sparsity": Sparsity(target=0, measured=0, layers={"w": counted["parts"]["encoder"]}, **counted)}
    )
    runs = [(record("teacher", 100.0), None, 0), (old, None, 0), pruned("a", 0.5, 3), pruned("b", 0.5, 2, OWN)]
    found = Components().build(make_results(runs))
    assert found["parameters"].tolist() == list(SIZES.values())  # no run tells what one part costs
    assert found["multiply_adds"].isna().all() and found["gzip_mb"].isna().all()


@pytest.mark.parametrize("table", [Components, ScopeAblation])
def test_experiments_without_scopes_have_no_rows_and_say_what_is_needed(table, two_tasks):
    assert table().build(two_tasks).empty
    assert table().notes(two_tasks)[0].text == NEEDED


def on_two_tasks(make_results, *runs):
    details = {"majority_rate": 50.0}
    made = [(record("teacher", 100.0, task=task, details=details), None, 0) for task in (TASK, "second")]
    for run, scores, _ in runs:
        made += [(run.model_copy(update={"key": replace(run.key, task=task)}), scores, 0) for task in (TASK, "second")]
    return make_results(made)


def test_leaderboards_and_fronts_tell_scopes_apart(make_results):
    """At one target the model that is pruned as a whole has more zeros; the front puts it where they are."""
    results = on_two_tasks(make_results, pruned("a", 0.5, 3), pruned("b", 0.5, 2, OWN))
    rows = LeaderboardOverTasks().build(results).set_index("recipe")
    assert rows.loc["b", ["encoder_sparsity", "whole_model_sparsity"]].tolist() == [0.5, 0.5]
    assert rows.loc["a", ["encoder_sparsity", "whole_model_sparsity"]].tolist() == [0.5, 0.4]
    assert "40.00" in LeaderboardOverTasks().display(rows.reset_index())["whole model %"].tolist()
    front = ParetoSparsity().build(results)
    assert front["whole_model_sparsity"].tolist()[:3] == [0, 0.4, 0.5] and front["on_front"].all()
    (axis, _) = ParetoSparsity().draw(front).axes
    assert axis.get_xlabel() == "sparsity of the whole model (%)"
    curves = AccuracyVsSparsity().build(results)
    assert curves.set_index("panel")["scope"].to_dict() == {"a": "encoder", "b": "whole model"}
    labels = {axis.get_title(): axis.get_xlabel() for axis in AccuracyVsSparsity().draw(curves).axes}
    assert labels[f"{TASK}, a"] == "sparsity of the encoder (%)"
    assert labels[f"{TASK}, b"] == "sparsity of the whole model (%)"


def test_nothing_is_said_of_scopes_where_all_are_the_encoder(make_results):
    results = on_two_tasks(make_results, pruned("a", 0.5, 3), pruned("b", 0.5, 2))
    for table in (LeaderboardOverTasks(), ParetoSparsity(), AccuracyVsSparsity()):
        content = table.build(results)
        assert not {"whole_model_sparsity", "scope"} & set(content.columns) and len(content)
