"""The checklist of experiments on pruning: small experiments that meet a line, and others that miss it."""

import math

import pytest

from obert.experiment.keys import RunKey
from obert.masks.counts import LayerSparsity, Sparsity
from obert.records.record import Score
from obert.tables._ratios import compression_ratio, pruned_groups, theoretical_speedup
from obert.tables.checklist import CHECKS, Checklist
from obert.tables.operating_points import OperatingPoints
from tables.examples import DENSE_RECIPE, record

START, POINTS, RATIOS, BASELINES, SEEDS, METRICS = CHECKS
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
TEACHER = RunKey("teacher", "movie_reviews", DENSE_RECIPE, 0)
OTHER = RunKey("teacher", "movie_reviews", "other", 0)
# Of the prunable 400 of 1000 parameters. Multiply-adds by part: a tenth of the model's are products.
COSTS = {"encoder": 800.0, "embeddings": 0.0, "head": 100.0, "products": 100.0}
COMPONENTS = {"components": {"length": 128, "multiply_adds": COSTS, "gzip_bytes": {}}}


def pruned(method, sparsity=0.5, seed=0, distribution="global", **fields):
    recipe = "gradual" if distribution == "global" else f"gradual_{distribution}"
    spec = {"recipe": {"training": {"epochs": 10.0}, "distribution": distribution}}
    return record("downstream", 70.0, method=method, sparsity=sparsity, seed=seed, recipe=recipe, spec=spec, **fields)


def row(results, line):
    content = Checklist().build(results)
    (found,) = content[content["recommendation"] == line].itertuples(index=False)
    return found.answer, found.found


@pytest.fixture
def make(make_results):
    """Results of pruned runs that start from the task's teacher."""

    def results(runs, origins=(), **more):
        every = [record("teacher", 80.0), *runs]
        starts = {run.key: TEACHER for run in runs if run.key.stage == "downstream"} | dict(origins)
        return make_results([(run, None, 0) for run in every], origins=starts, **more)

    return results


def test_every_line_is_answered_and_those_that_are_missed_are_said(make):
    table = Checklist()
    results = make([pruned("obert"), pruned("magnitude")])
    content = table.build(results)
    assert content["recommendation"].tolist() == list(CHECKS) and (content["found"] != "").all()
    (note,) = table.notes(results)
    missed = content.loc[content["answer"] != "met", "recommendation"]
    assert len(missed) and all(line in note.text for line in missed) and METRICS not in note.text


def test_methods_that_start_from_one_teacher_meet_the_line_and_others_do_not(make):
    runs = [pruned("obert"), pruned("magnitude")]
    assert row(make(runs), START)[0] == "met"
    answer, found = row(make(runs, origins={runs[0].key: OTHER}), START)
    assert answer == "not met" and "0 of 1 comparisons" in found
    third = [pruned(method, 0.9) for method in ("obert", "magnitude")]
    assert row(make([*runs, *third], origins={runs[0].key: OTHER}), START)[0] == "in part"
    answer, found = row(make(runs[:1]), START)
    assert answer == "not met" and "No two methods are compared" in found


def test_upstream_models_of_one_pretrained_encoder_have_one_start(make):
    """Each method is transferred from its own upstream model; both are pruned from the same dense one."""
    base = RunKey("upstream_teacher", "mlm", "pretrain", 0)
    runs, origins = [], {}
    for method in ("obert", "prune_ofa"):
        made = record("transfer", 70.0, method=method, sparsity=0.9, recipe="transfer@upstream")
        upstream = RunKey("upstream", "mlm", "upstream", 0, method, 0.9)
        runs.append(made)
        origins |= {made.key: upstream, upstream: base}
    assert row(make(runs, origins=origins), START)[0] == "met"


def test_a_curve_needs_five_points(make):
    whole = [pruned("obert", sparsity) for sparsity in SPARSITIES]
    answer, found = row(make(whole), POINTS)
    assert answer == "met" and "2.0 to 10.0" in found
    answer, found = row(make([*whole, pruned("magnitude")]), POINTS)
    assert answer == "in part" and "1 of 2 curves" in found
    assert row(make(whole[:4]), POINTS)[0] == "not met"


def test_points_that_are_planned_are_announced(make):
    runs = [pruned("obert", sparsity) for sparsity in SPARSITIES[:4]]
    planned = pruned("obert", SPARSITIES[4]).key
    results = make(runs, planned=[planned], origins={planned: TEACHER})
    answer, found = row(results, POINTS)
    assert answer == "not met" and found.endswith("Once all planned runs are made: met.")


def test_seeds_give_a_mean_and_a_deviation(make):
    several = [pruned("obert", seed=seed) for seed in (0, 1, 2)]
    assert row(make(several), SEEDS)[0] == "met"
    answer, found = row(make([*several, pruned("magnitude")]), SEEDS)
    assert answer == "in part" and "1 of 2 pruned models" in found and "1 to 3" in found
    assert row(make(several[:1]), SEEDS)[0] == "not met"


def test_baselines_are_random_and_magnitude_global_and_by_layer(make):
    every = [pruned(method, distribution=how) for method in ("random", "magnitude") for how in ("global", "uniform")]
    assert row(make([*every, pruned("obert")]), BASELINES)[0] == "met"
    answer, found = row(make(every[:3]), BASELINES)
    assert answer == "in part" and found == "Missing: movie_reviews: magnitude by layer."
    assert row(make([pruned("obert")]), BASELINES)[0] == "not met"


def test_metrics_are_named_with_their_examples(make):
    answer, found = row(make([pruned("obert")]), METRICS)
    assert (answer, found) == ("met", "movie_reviews: accuracy over 4 examples.")
    without = record("downstream", None, method="obert", sparsity=0.5)
    assert row(make([without]), METRICS)[0] == "not met"


def timed(sparsity=0.5):
    """A pruned model with half of the encoder and a quarter of the head zero, exported and timed; its teacher too."""
    parts = {"encoder": (150, 300), "embeddings": (0, 600), "head": (25, 100)}
    counted = {name: LayerSparsity(zeros=zeros, size=size) for name, (zeros, size) in parts.items()}
    zeros = Sparsity(target=sparsity, measured=sparsity, layers={}, encoder=0.5, whole_model=0.175, parts=counted)
    made = pruned("obert", sparsity).model_copy(update={"sparsity": zeros})
    speed = {"onnxruntime_throughput": Score(value=30.0, count=20), "onnxruntime_speedup": Score(value=1.5, count=20)}
    chosen = {"method": "obert", "sparsity": sparsity}
    export = record("export", details=COMPONENTS, **chosen)
    dense = record("export", details=COMPONENTS, recipe=DENSE_RECIPE)
    return [made, export, dense, record("benchmark", metrics=speed, **chosen)]


def test_ratios_are_of_parameters_and_of_multiply_adds(make):
    """175 of 1000 parameters are zero: 1000 / 825. Half of 800 multiply-adds and a quarter of 100 fall away, and the
    100 of products stay: 1000 / (400 + 75 + 100)."""
    results = make(timed())
    (group,) = pruned_groups(results)
    assert compression_ratio(results, group) == pytest.approx(1000 / 825)
    assert theoretical_speedup(results, group) == pytest.approx(1000 / 575)
    assert row(results, RATIOS)[0] == "met"
    content = OperatingPoints().build(results)
    values = content[["compression_ratio", "theoretical_speedup", "onnxruntime_speedup"]].iloc[0]
    assert values.tolist() == pytest.approx([1000 / 825, 1000 / 575, 1.5])


def test_models_that_were_never_exported_have_no_speed(make):
    results = make([pruned("obert")])
    (group,) = pruned_groups(results)
    assert math.isnan(theoretical_speedup(results, group)) and compression_ratio(results, group) == 1000 / 800
    answer, found = row(results, RATIOS)
    assert answer == "in part" and "1 have a compression ratio, 0 a theoretical and 0 a measured" in found


def test_an_experiment_that_prunes_nothing_has_no_checklist(make):
    results = make([])
    assert Checklist().build(results).empty and "Nothing is pruned" in Checklist().notes(results)[0].text
