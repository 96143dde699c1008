"""`configs/paper.yaml` lists every run that the paper made for its Tables 1, 2, 3 and 6."""

from collections import Counter

import pytest

from obert.experiment.checks import load_experiment
from obert.experiment.plan import all_keys, source_keys

GLUE = ("mnli", "qqp")


@pytest.fixture(scope="module")
def keys():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(__file__.rpartition("/tests/")[0])
        experiment = load_experiment("configs/paper.yaml")
        return experiment, all_keys(experiment)


def counted(keys, stage, recipe):
    found = (k for k in keys if k.stage == stage and k.recipe.partition("@")[0] == recipe)
    return Counter((k.task, k.recipe.partition("@")[2] or None, k.sparsity) for k in found)


def test_table_1(keys):
    """Three tasks, three seeds: 90 and 97 % in 10 epochs; 80, 90 and 97 % in 30."""
    _, keys = keys
    tasks = ("squad", *GLUE)
    assert counted(keys, "downstream", "obert_10_epochs") == {(t, None, s): 3 for t in tasks for s in (0.9, 0.97)}
    assert counted(keys, "downstream", "obert_30_epochs") == {(t, None, s): 3 for t in tasks for s in (0.8, 0.9, 0.97)}


def test_table_2(keys):
    """One upstream model a sparsity; four runs on each task, at 97 % on three. Prune OFA at 90 %, dense beside."""
    _, keys = keys
    upstream = counted(keys, "upstream", "upstream_obert_3_epochs") + counted(keys, "upstream", "upstream_prune_ofa")
    assert upstream == {("mlm", None, 0.9): 2, ("mlm", None, 0.97): 1}
    at_90 = {(t, "upstream_obert_3_epochs", 0.9): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    at_97 = {(t, "upstream_obert_3_epochs", 0.97): 4 for t in ("squad", "mnli", "qqp")}
    rivals = {(t, "upstream_prune_ofa", 0.9): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    dense = {(t, "mlm_10_epochs", None): 4 for t in ("squad", "mnli", "qqp", "sst2", "qnli")}
    assert counted(keys, "transfer", "transfer_8_epochs") == at_90 | at_97 | rivals | dense


def test_tables_3_and_6(keys):
    """12, 6 and 3 layers on SQuAD: dense, and 80 and 90 % in both patterns."""
    experiment, keys = keys
    few = ("keep_6_layers", "keep_3_layers")
    assert counted(keys, "transfer", "dense_30_epochs") == {("squad", s, None): 3 for s in ("pretrained", *few)}
    assert counted(keys, "downstream", "obert_30_epochs_1x4") == {("squad", None, s): 3 for s in (0.8, 0.9)}
    for pattern in ("", "_1x4"):
        found = counted(keys, "downstream", f"obert_30_epochs_fewer_layers{pattern}")
        assert found == {("squad", source, s): 3 for source in few for s in (0.8, 0.9)}
    quantized = counted(keys, "quantize", "quantize_10_epochs")
    patterned = ["obert_30_epochs_1x4", *(f"obert_30_epochs_fewer_layers_1x4@{source}" for source in few)]
    dense = {("squad", f"dense_30_epochs@{source}", None): 3 for source in ("pretrained", *few)}
    assert quantized == dense | {("squad", source, s): 3 for source in patterned for s in (0.8, 0.9)}
    (cut,) = {k for k in keys if k.stage == "upstream" and k.recipe == "keep_3_layers"}
    pruned = next(k for k in keys if k.recipe == "obert_30_epochs_fewer_layers@keep_3_layers")
    assert [k.stage for k in source_keys(experiment, pruned)] == ["upstream", "teacher"]
    assert source_keys(experiment, pruned)[0] == cut


def test_the_whole_grid_has_the_expected_runs(keys):
    _, keys = keys
    stages = Counter(k.stage for k in keys)
    assert stages.pop("export") == stages.pop("benchmark") == 36
    assert stages == {
        "upstream_teacher": 1,
        "upstream": 5,
        "teacher": 5,
        "transfer": 81,
        "downstream": 108,
        "quantize": 27,
    }
    assert len(set(keys)) == len(keys)
