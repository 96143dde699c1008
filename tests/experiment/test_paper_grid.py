"""`configs/paper.yaml` lists every run that the paper made for its Tables 1, 2, 3 and 6."""

from collections import Counter

import pytest

from obert.experiment.plan import Plan

GLUE = ("mnli", "qqp")


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(__file__.rpartition("/tests/")[0])
        return Plan.load("configs/paper.yaml")


def counted(plan, stage, recipe):
    """Runs of a recipe by task, what they start from, and sparsity."""
    keys = (run.key for run in plan.of_stage(stage) if run.key.lineage[0] == recipe)
    return Counter((key.task, "@".join(key.origin) or None, key.sparsity) for key in keys)


def test_table_1(plan):
    """Three tasks, three seeds: 90 and 97 % in 10 epochs; 80, 90 and 97 % in 30."""
    tasks = ("squad", *GLUE)
    assert counted(plan, "downstream", "obert_10_epochs") == {(t, None, s): 3 for t in tasks for s in (0.9, 0.97)}
    assert counted(plan, "downstream", "obert_30_epochs") == {(t, None, s): 3 for t in tasks for s in (0.8, 0.9, 0.97)}


def test_table_2(plan):
    """One upstream model a sparsity; four runs on each task, at 97 % on three. Prune OFA at 90 %, dense beside."""
    upstream = counted(plan, "upstream", "upstream_obert_3_epochs") + counted(plan, "upstream", "upstream_prune_ofa")
    assert upstream == {("mlm", None, 0.9): 2, ("mlm", None, 0.97): 1}
    at_90 = {(t, "upstream_obert_3_epochs", 0.9): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    at_97 = {(t, "upstream_obert_3_epochs", 0.97): 4 for t in ("squad", "mnli", "qqp")}
    rivals = {(t, "upstream_prune_ofa", 0.9): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    dense = {(t, "mlm_10_epochs", None): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    assert counted(plan, "transfer", "transfer_8_epochs") == at_90 | at_97 | rivals | dense


def test_tables_3_and_6(plan):
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


def test_the_whole_grid_has_the_expected_runs(plan):
    stages = Counter(run.stage.name for run in plan)
    assert stages.pop("export") == stages.pop("benchmark") == 36
    assert stages == {
        "upstream_teacher": 1,
        "upstream": 5,
        "teacher": 5,
        "transfer": 81,
        "downstream": 108,
        "quantize": 27,
    }
    assert len(set(plan)) == len(plan)
