"""The speed benchmarks at sizes at which their times mean nothing: they run, and their results are right."""

import json

import cpu_inference
import fisher
import prune_step
import pytest
import report
import torch
from transformers import BertConfig

CPU = torch.device("cpu")


def printed(capsys) -> dict:
    line, end = capsys.readouterr().out.split("\n")
    assert end == ""
    return json.loads(line)


@pytest.mark.parametrize("block", [4, 50])
def test_fisher_is_exact(capsys, block):
    fisher.main(["--block", str(block), "--gradients", "128", "--weights", "12000", "--threads", "1", "--json"])
    found = printed(capsys)
    assert found["max_relative_error"] <= 2e-4
    assert found["recursion_max_relative_error"] <= 1e-2
    assert {"speedup", "gemm_fraction", "device", "torch"} <= found.keys()
    assert (found["block"], found["gradients"], found["weights"], found["threads"]) == (block, 128, 12000, 1)


def test_fisher_refuses_a_block_left_over(capsys):
    with pytest.raises(SystemExit):
        fisher.main(["--block", "7", "--weights", "100"])
    assert "no multiple of --block 7" in capsys.readouterr().err


def test_the_printed_figures_name_the_speedup(capsys):
    fisher.main(["--block", "10", "--gradients", "70", "--weights", "600"])
    assert "speedup  " in capsys.readouterr().out


@pytest.mark.parametrize("layers", [None, 3])
def test_prune_step_on_a_fine_tuned_model(root, capsys, layers):
    arguments = ["--config", "configs/smoke.yaml", "--model", "tests/data/tiny_bert", "--gradients", "12", "--json"]
    prune_step.main([*arguments, *(["--published-layers", str(layers)] if layers else [])])
    found = printed(capsys)
    assert found["n"] == 48
    assert 0 <= found["accuracy"] <= 100
    assert 0 <= found["published_accuracy"] <= 100
    assert (found["published_seconds_extrapolated"], found["published_layers"]) == (layers is not None, layers or 12)
    for seconds in (found["seconds"], found["published_seconds"]):
        step = seconds.pop("step")
        assert min(seconds.values()) > 0
        assert sum(seconds.values()) == pytest.approx(step)


def test_recursion_and_sum_prune_the_same_published_weights():
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    case = prune_step.random_case(config, 8, CPU)
    counted = []
    for accumulation in ("recursion", "sum"):
        method = prune_step.Timed(gradients="minibatch", num_gradients=20, dampening=1e-4, accumulation=accumulation)
        pruned = []
        case_with_score = prune_step.Case(
            case.network,
            case.data,
            case.losses,
            lambda pruned=pruned: (pruned.extend(w == 0 for w in case.weights.values()) or 0.0, 1),
        )
        prune_step.step(case_with_score, method, 0.5)
        counted.append(torch.cat([mask.flatten() for mask in pruned]))
    assert (counted[0] == counted[1]).float().mean() > 0.999
    assert all((weight != 0).all() for weight in case.weights.values())  # restored


def test_prune_step_on_random_weights_stands_beside_a_floor(capsys):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    case = prune_step.random_case(config, 8, CPU)
    found = prune_step.compare(case, {"solver": "joint"}, 32, 0.8, None)
    assert (found["accuracy"], found["solver"]) == (None, "joint")
    floor = prune_step.floor(found["weights"], prune_step.Timed(num_gradients=32), 8, CPU)
    assert 0 < floor["step"] < found["seconds"]["step"]


def test_missing_teacher_says_how_to_make_it(root, tmp_path, monkeypatch):
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="python -m obert teacher --config"):
        prune_step.main(["--config", "configs/smoke.yaml"])


@pytest.mark.parametrize("int8", [False, True])
def test_cpu_inference_times_a_tiny_model(capsys, int8):
    config = BertConfig(vocab_size=200, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    arguments = ["--layers", "1", "--pattern", "1x4", "--batch", "2", "--length", "8", "--threads", "1"]
    arguments += ["--iterations", "3", "--engines", "onnxruntime", "--json", *(["--int8"] if int8 else [])]
    cpu_inference.main(arguments, config)
    found = printed(capsys)
    ratio = found["onnxruntime_candidate_items_per_s"] / found["onnxruntime_dense_items_per_s"]
    assert found["onnxruntime_speedup"] == pytest.approx(ratio)
    assert ratio > 1  # one layer against twelve
    assert found["candidate_gzip_mb"] < found["dense_gzip_mb"]
    assert (found["layers"], found["pattern"], found["int8"]) == (1, "1x4", int8)


@pytest.mark.filterwarnings("ignore:A test tried to use socket")  # MLflow asks where it runs
def test_report_from_records_and_from_mlflow_is_the_same(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path)  # the benchmark sets it too
    report.main(["--records", "3", "--database", "--json"])
    found = printed(capsys)
    assert (found["records"], found["same_files"]) == (3, True)
    assert min(found["seconds_from_records"], found["seconds_from_mlflow"]) > 0
