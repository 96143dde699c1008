"""`configs/paper.yaml` lists every run that the paper made for its tables and figures."""

import re
from collections import Counter

import pytest

from obert.commands.tables import load_results
from obert.experiment.plan import Plan
from obert.foundation import registry
from obert.sweeps.search import load_sweep

GLUE = ("mnli", "qqp")
# Runs that belong into a table, by its own rule: the paper's, and this project's beside them.
TABLES = {
    "table1": 75,  # oBERT 18 in 10 epochs and 27 in 30; rivals 30
    "table2": 72,  # at 90 % 40, at 97 % 12, dense 20
    "table3": 81,  # dense 9, unstructured 21, 4-block 18, quantised 27; lottery tickets 6
    "table4": 9,
    "table5": 177,  # seven tasks, eight numbers of epochs; on SQuAD PLATON 3 and lottery tickets 6
    "table6": 25,  # 3 dense teachers, 3 dense in 30 epochs, 19 pruned
    "table7": 6,
    "table8": 4,
    "table12": 75,
    "table13": 72,
    "table14": 81,
    "table15": 75,
    "table16": 72,
    "table17": 34,  # those of Table 6, and 9 quantised
    "figure1": 75,
    "figure2": 34,
    "figure6": 48,  # oBERT 18; of 4.4 3, rivals 27
    "figure7": 48,
    "figure8": 63,  # oBERT 57, GMP* 6
    "figure9": 63,
}


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(__file__.rpartition("/tests/")[0])
        return Plan.load("configs/paper.yaml")


def counted(plan, stage, recipe):
    """Runs of a recipe by task, what they start from, and sparsity."""
    keys = (run.key for run in plan.of_stage(stage) if run.key.lineage[0] == recipe)
    return Counter((key.task, "@".join(key.origin) or None, key.sparsity) for key in keys)


def test_paper_configuration_plans_the_runs_of_table_1(plan):
    """Three tasks, three seeds: 90 and 97 % in 10 epochs; 80, 90 and 97 % in 30."""
    tasks = ("squad", *GLUE)
    assert counted(plan, "downstream", "obert_10_epochs") == {(t, None, s): 3 for t in tasks for s in (0.9, 0.97)}
    found = {key: n for key, n in counted(plan, "downstream", "obert_30_epochs").items() if key[0] in tasks}
    assert found == {(t, None, s): 3 for t in tasks for s in (0.8, 0.9, 0.97)}


def test_paper_configuration_plans_the_runs_of_table_2(plan):
    """One upstream model a sparsity; four runs on each task, at 97 % on three. Prune OFA at 90 %, dense beside."""
    upstream = counted(plan, "upstream", "upstream_obert_3_epochs") + counted(plan, "upstream", "upstream_prune_ofa")
    assert upstream == {("mlm", None, 0.9): 2, ("mlm", None, 0.97): 1}
    at_90 = {(t, "upstream_obert_3_epochs", 0.9): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    at_97 = {(t, "upstream_obert_3_epochs", 0.97): 4 for t in ("squad", "mnli", "qqp")}
    rivals = {(t, "upstream_prune_ofa", 0.9): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    dense = {(t, "mlm_10_epochs", None): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    assert counted(plan, "transfer", "transfer_8_epochs") == at_90 | at_97 | rivals | dense


def test_paper_configuration_plans_the_runs_of_tables_3_and_6(plan):
    """12, 6 and 3 layers on SQuAD: dense, and 80 and 90 % in both patterns."""
    few = ("keep_6_layers", "keep_3_layers")
    assert counted(plan, "transfer", "dense_30_epochs") == {("squad", s, None): 3 for s in ("pretrained", *few)}
    assert counted(plan, "downstream", "obert_30_epochs_1x4") == {("squad", None, s): 3 for s in (0.8, 0.9)}
    for pattern in ("", "_1x4"):
        found = counted(plan, "downstream", f"obert_30_epochs_fewer_layers{pattern}")
        assert found == {("squad", source, s): 3 for source in few for s in (0.8, 0.9)}
    quantized = counted(plan, "quantize", "quantize_10_epochs")
    patterned = ["obert_30_epochs_1x4", *(f"obert_30_epochs_fewer_layers_1x4@{source}" for source in few)]
    dense = {("squad", f"dense_30_epochs@{source}", None): 3 for source in ("pretrained", *few)}
    assert quantized == dense | {("squad", source, s): 3 for source in patterned for s in (0.8, 0.9)}
    cut = plan.find("upstream", recipe="keep_3_layers")
    pruned = next(run for run in plan if run.key.lineage == ("obert_30_epochs_fewer_layers", "keep_3_layers"))
    assert pruned.sources == {"model": cut, "teacher": plan.teacher("squad")}


def test_paper_configuration_plans_the_runs_of_table_4(plan):
    """One-shot 2:4 with both methods, and oBERT with one epoch; three seeds."""
    one_shot = [run.key.method for run in plan if run.key.lineage == ("one_shot_2_4",)]
    assert Counter(one_shot) == {"magnitude": 3, "obert": 3}
    assert counted(plan, "downstream", "one_shot_2_4_then_1_epoch") == {("squad", None, 0.5): 3}
    for run in plan.of_stage("downstream"):
        if run.key.lineage[0].startswith("one_shot_2_4"):
            assert run.recipe.pattern == "2:4" and run.sources["model"] is plan.teacher("squad")


def test_paper_configuration_plans_the_runs_of_table_5(plan):
    """Seven tasks, 1 to 8 epochs under the masks of one upstream model, without distillation."""
    tasks = ("mnli", "qqp", "qnli", "mrpc", "sst2", "cola", "stsb")
    found = [run for run in plan.of_stage("transfer") if run.key.lineage[0].startswith("transfer_alone")]
    assert all(run.recipe.distillation is None and run.key.sparsity == 0.9 for run in found)
    counts = Counter((run.key.task, run.recipe.training.epochs) for run in found)
    assert counts == {(task, epochs): 3 for task in tasks for epochs in range(1, 9)}


def test_paper_configuration_plans_the_runs_of_tables_7_and_8(plan):
    """BERT-large in both patterns, MobileBERT with 14 layers; what is quantised starts from what is pruned."""
    large, mobile = "squad_bert_large", "squad_mobilebert"
    assert Counter(
        (run.key.sparsity, run.key.seed)
        for run in plan.of_stage("downstream")
        if (run.key.task, run.key.recipe) == (large, "obert_30_epochs")
    ) == {(sparsity, seed): 1 for sparsity in (0.9, 0.95) for seed in (42, 3407, 54321)}
    for task, recipe, sparsity, layers in (
        (large, "mlperf_bert_large", 0.95, None),
        (mobile, "mlperf_mobilebert", 0.5, tuple(range(14))),
    ):
        (pruned,) = [run for run in plan.of_stage("downstream") if run.key.lineage == (recipe,)]
        assert (pruned.key.task, pruned.key.sparsity, pruned.recipe.layers) == (task, sparsity, layers)
        assert pruned.sources["model"] is pruned.sources["teacher"] is plan.teacher(task)
        (quantized,) = [run for run in plan.of_stage("quantize") if run.key.origin == (recipe,)]
        assert quantized.sources["model"] is pruned and quantized.key.at("benchmark") in plan.runs
        timed = plan[quantized.key.at("benchmark")].specification["benchmark"]["also"]
        assert [(one["batch_size"], one["sequence_length"]) for one in timed] == [(128, 384)]
    encoders = {run.key.task: run.model.source for run in plan}
    assert (encoders.pop(large), encoders.pop(mobile)) == (
        "google-bert/bert-large-uncased",
        "google/mobilebert-uncased",
    )
    assert set(encoders.values()) == {"google-bert/bert-base-uncased"}


@pytest.mark.parametrize(
    ("name", "trials", "runs"),
    [("block_size", 5, 3), ("mfac", 3, 3), ("gradients", 4, 3), ("dampening", 5, 3), ("transfer", 8, 7)],
)
def test_sweeps_of_the_paper_have_the_trials_of_figures_3_to_5_and_table_5(root, plan, name, trials, runs):
    assert f"paper_{name}" in plan.experiment.sweeps
    search = load_sweep(f"configs/sweeps/paper_{name}.yaml")
    assert (len(search.points), len(search.runs)) == (trials, runs)


@pytest.fixture(scope="module")
def nothing_measured(plan, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(__file__.rpartition("/tests/")[0])
        empty = tmp_path_factory.mktemp("empty")
        return load_results(plan, "configs/paper.yaml", empty, empty)


@pytest.mark.parametrize("name", TABLES)
def test_each_table_of_the_paper_names_the_runs_that_it_lacks(nothing_measured, name):
    notes = registry.load("tables", name)().notes(nothing_measured)
    found = [re.match(r"(\d+) of the (\d+) planned runs", note.text) for note in notes]
    assert [tuple(map(int, match.groups())) for match in found if match] == [(TABLES[name], TABLES[name])]


def test_the_whole_grid_has_the_expected_runs(plan):
    stages = Counter(run.stage.name for run in plan)
    assert stages.pop("export") == stages.pop("benchmark") == 40
    assert stages == {
        "upstream_teacher": 1,
        "upstream": 5,
        "teacher": 10,
        "transfer": 249,
        "downstream": 125,
        "quantize": 29,
    }
    assert len(set(plan)) == len(plan)
