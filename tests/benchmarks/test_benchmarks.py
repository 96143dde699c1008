"""The speed benchmarks at sizes at which their times mean nothing: they run, and their results are right."""

import json

import cpu_inference
import dampening
import estimates
import fisher
import live_tracking
import movement_scores
import numpy as np
import prune_step
import pytest
import report
import startup
import torch
import training_step
import yaml
from _fma_peak import fma_peak
from samples import HEADS, with_new_head
from tables.examples import record
from transformers import BertConfig

from obert.experiment.plan import Plan
from obert.models.encoders import prunable_weights, save
from obert.models.loading import load_tokenizer
from obert.records.record import write_record

CPU = torch.device("cpu")
TINY_WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


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
def test_prune_step_on_a_fine_tuned_model(root, capsys, tmp_path, layers):
    tiny = root / "tests/data/tiny_bert"
    save(with_new_head(tiny, HEADS["sequence_classification"]), load_tokenizer(tiny), tmp_path)
    arguments = ["--config", "configs/smoke.yaml", "--model", str(tmp_path), "--gradients", "12", "--json"]
    prune_step.main([*arguments, *(["--published-layers", str(layers)] if layers else [])])
    found = printed(capsys)
    assert found["n"] == 48
    assert (found["dampening"], found["published_dampening"]) == ("1%", 1e-7)
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


@pytest.fixture
def teacher(root, tmp_path, monkeypatch):
    """The planned teacher of a task, a tiny model with a new head in its place."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path)
    planned = Plan.load("configs/smoke.yaml").teacher("movie_reviews")
    tiny = root / "tests/data/tiny_bert"
    save(with_new_head(tiny, HEADS["sequence_classification"]), load_tokenizer(tiny), planned.folder / "model")
    return planned


def test_removals_by_movement_scores_are_of_the_weights_that_are_said(teacher, monkeypatch):
    removed = []

    def kept(prepared):
        masks = [layer.weight == 0 for layer in movement_scores.prunable_layers(prepared.network).values()]
        removed.append(torch.cat([mask.flatten() for mask in masks]))
        return float(removed[-1].float().mean())

    monkeypatch.setattr(movement_scores, "score", kept)
    found = movement_scores.measured(teacher, 3, [0]).set_index(["removed", "share"])["score"]
    for end in ("lowest", "highest", "random"):
        assert [found[end, share] for share in movement_scores.SHARES] == pytest.approx(
            movement_scores.SHARES, abs=1e-3
        )
    none, lowest, _, more, highest, *_ = removed
    assert not none.any() and not (lowest & highest).any() and (more | ~lowest).all()


def test_a_grid_of_dampenings_is_scored_once(teacher, tmp_path, monkeypatch):
    few = {"num_gradients": 12, "gradients": "per_example", "gradient_batch_size": 4}
    monkeypatch.setattr(dampening, "GRADIENTS", {"few": few})
    monkeypatch.setattr(dampening, "DAMPENINGS", (1e-7, "10%"))
    file = tmp_path / "grid.jsonl"
    arguments = [str(file), "--config", "configs/smoke.yaml", "--task", "movie_reviews", "--gradients", "few", "--draw"]
    dampening.main([*arguments, "0"])
    first = file.read_text()
    dampening.main([*arguments, "0", "1"])
    assert file.read_text().startswith(first)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = {tuple(line[name] for name in dampening.IDENTITY[2:]): line for line in lines}
    assert len(found) == len(lines) == 8
    for (draw, added, sparsity), line in found.items():
        assert 0 <= line["score"] <= 100
        cost = line["predicted_loss_increase"]
        assert sparsity == 0.7 or cost > found[draw, added, 0.7]["predicted_loss_increase"]
    costs = {draw: found[draw, "10%", 0.7]["predicted_loss_increase"] for draw in (0, 1)}
    assert costs[0] != costs[1]
    means = dampening.table(file).loc[("movie_reviews", "few")]
    scores = [found[draw, "10%", 0.8]["score"] for draw in (0, 1)]
    assert (means[0.8, "10%"], means["draws"].item()) == (pytest.approx(sum(scores) / 2), 2)


TINY = BertConfig(vocab_size=200, hidden_size=32, num_attention_heads=2, intermediate_size=64)


@pytest.mark.slow
def test_cpu_inference_times_all_models_in_all_engines_in_one_run(capsys):
    """One layer against twelve; 32 and 64 features have 8,192 weights, of which 1,638 are left, on 16 tokens."""
    arguments = ["--models", "1:0.8:1x4", "1:0.8:1x4:int8", "--batch", "2", "--length", "8", "--threads", "1"]
    cpu_inference.main([*arguments, "--iterations", "3", "--engines", "openvino", "sparse", "--json"], TINY)
    found = printed(capsys)
    rows = {(row["model"], row["engine"]): row for row in found["rows"]}
    dense = "12:0:unstructured"
    engines = {"onnxruntime", "openvino", "sparse"}
    assert {engine for model, engine in rows if model == dense} == engines
    assert {key for key in rows if key[0] != dense} == {
        (model, engine) for model in ("1:0.8:1x4", "1:0.8:1x4:int8") for engine in ("openvino", "sparse")
    }
    base = rows[dense, "onnxruntime"]
    assert base["speedup"] == base["over_own_dense"] == 1
    for row in rows.values():
        assert row["speedup"] == pytest.approx(row["items_per_s"] / base["items_per_s"])
        own = rows[dense, row["engine"]]
        assert row["over_own_dense"] == pytest.approx(row["items_per_s"] / own["items_per_s"])
        assert (row["parts"] != {}) == (row["engine"] == "sparse")
    assert rows["1:0.8:1x4", "openvino"]["over_own_dense"] > 1
    row, peak = rows["1:0.8:1x4", "sparse"], 1e9 * found["machine"]["peak_gflops"]
    assert row["linear_of_peak"] == pytest.approx(2 * 1640 * 16 / row["parts"]["linear"] / peak, rel=0.01)
    assert found["gzip_mb"]["1:0.8:1x4:int8"] < found["gzip_mb"]["1:0.8:1x4"] < found["gzip_mb"][dense]
    assert (found["options"]["batch"], found["skipped"]) == (2, {})


@pytest.mark.slow
def test_cpu_inference_prints_a_table_of_one_model(capsys):
    arguments = ["--layers", "1", "--sparsity", "0.5", "--batch", "1", "--length", "8", "--threads", "1"]
    cpu_inference.main([*arguments, "--iterations", "3", "--masks", "global", "--engines", "onnxruntime"], TINY)
    lines = capsys.readouterr().out.splitlines()
    assert "1 threads, 1 x 8 tokens, global masks; peak" in lines[0]
    assert lines[-1].split()[:2] == ["1:0.5:unstructured", "onnxruntime"]


def test_a_global_mask_is_uneven():
    def masked(masks):
        network = cpu_inference.random_model(TINY, cpu_inference.Model(2, 0.9), masks)
        return [weight == 0 for weight in prunable_weights(network).values()]

    even, uneven = masked("random"), masked("global")
    assert sum(int(zeros.sum()) for zeros in uneven) == sum(int(zeros.sum()) for zeros in even)
    assert np.std([zeros.float().mean() for zeros in uneven]) > 3 * np.std([zeros.float().mean() for zeros in even])
    assert any(zeros.all(dim=1).any() for zeros in uneven), "no row is empty"


def test_the_peak_is_not_above_what_the_clock_allows():
    """Two units of 16 lanes at 10 GHz on each thread would be 640 GFLOP/s; a plain loop in Python reaches 0.1."""
    assert 1e9 < fma_peak(1) < 640e9


@pytest.mark.filterwarnings("ignore:A test tried to use socket")  # MLflow asks where it runs
def test_report_from_records_and_from_mlflow_is_the_same(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path)  # the benchmark sets it too
    report.main(["--records", "3", "--database", "--json"])
    found = printed(capsys)
    assert (found["records"], found["same_files"]) == (3, True)
    assert min(found["seconds_from_records"], found["seconds_from_mlflow"]) > 0


def test_live_tracking_compares_steps_that_are_told_with_steps_that_are_not(capsys, monkeypatch):
    monkeypatch.setattr("obert.tracking.live.PACE", {"delay": 0.0, "interval": 0.1, "share": 1.0, "niceness": 0})
    live_tracking.main(["--layers", "1", "--width", "32", "--steps", "3", "--rounds", "1", "--threads", "1", "--json"])
    found = printed(capsys)
    assert found["ratio"] > 0 and found["ratio_of_totals"] > 0
    assert 0 < found["told_seconds"] < 1
    assert found["steps"] == 3 and found["steps_in_database"] in (0, 3)  # 0 where the worker took too long to start


@pytest.mark.slow
def test_nothing_is_imported_before_the_first_step_that_comes_after_it(tmp_path):
    startup.prepare(tmp_path)
    found = startup.first_step(tmp_path)
    assert 0 < found["seconds"] < 600
    assert {"torch", "transformers", "obert"} <= set(found["packages"])
    later = {"mlflow", "evaluate", "onnx", "onnxruntime", "openvino", "matplotlib", "optuna", "snakemake", "cpuinfo"}
    assert not later & set(found["packages"])


@pytest.mark.parametrize("task", ["squad", "sst2"])
def test_training_step_times_both_trainers_in_turns(capsys, task):
    """Losses are real ones on both sides, and the ratio is that of the seconds."""
    arguments = ["--device", "cpu", "--task", task, "--batch", "2", "--length", "8", "--turns", "3", "--json"]
    training_step.main(arguments, BertConfig(vocab_size=50, **TINY_WIDTHS))
    found = printed(capsys)
    assert list(found["pairs"]) == ["masks held", "masks held, distillation"]
    for pair in found["pairs"].values():
        assert pair["ratio"] == pytest.approx(pair["seconds_per_step"] / pair["plain_seconds_per_step"])
        assert pair["plain_seconds_per_step"] > 0
        assert pair["quartiles_of_ratio"][0] <= pair["quartiles_of_ratio"][1]
    assert (found["batch"], found["length"], found["device"]) == (2, 8, "cpu")


def test_trainers_of_a_training_step_take_turns(monkeypatch):
    """Two steps each, one after the other, and the masks of ours are held."""
    case = training_step.Case("sst2", 2, 8, 2, 3, CPU)
    order, zeros = [], []

    class Noted(training_step.BlockTimer):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            order.append(self.own)
            if self.own == 1:
                zeros.append(sum(int((weight == 0).sum()) for weight in prunable_weights(model).values()))
            super().on_step_end(args, state, control, **kwargs)

    monkeypatch.setattr(training_step, "BlockTimer", Noted)
    training_step.measure(case, BertConfig(vocab_size=50, **TINY_WIDTHS))
    assert order == [0, 0, 1, 1] * 8
    assert zeros == [round(0.8 * (4 * 16 * 16 + 2 * 16 * 32))] * 16


def test_a_trainer_that_fails_ends_the_benchmark_of_a_training_step(monkeypatch):
    def fail(self, *given, **options):
        raise ValueError("enough")

    monkeypatch.setattr(training_step.CompressionTrainer, "compute_loss", fail)
    with pytest.raises(ValueError, match="enough"):
        training_step.measure(training_step.Case("sst2", 2, 8, 1, 3, CPU), BertConfig(vocab_size=50, **TINY_WIDTHS))


def test_estimates_are_compared_with_what_runs_took(root, tmp_path, monkeypatch, capsys):
    """Two seeds of 100 and 150 s, and 125 s to another target."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    content = yaml.safe_load((root / "configs/smoke.yaml").read_text(encoding="utf-8"))
    kept = {name: content[name] for name in ("name", "description", "model", "tasks", "threads", "teacher")}
    block = {"recipes": ["smoke_gradual"], "methods": ["magnitude"], "tasks": ["movie_reviews"]}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(kept | {"downstream": [block | {"sparsities": [0.75, 0.8]}], "seeds": [0, 1]}))
    plan = Plan.load(str(path))
    for sparsity, seed, seconds in ((0.8, 0, 100.0), (0.8, 1, 150.0), (0.75, 0, 125.0)):
        run = plan.find("downstream", sparsity=sparsity, seed=seed)
        fields = {"spec": run.specification, "spec_hash": run.specification_hash, "wall_time_seconds": seconds}
        write_record(run.folder, record("downstream", 90.0, **fields))
    estimates.main(["--config", str(path)])
    rows = [line.rsplit(maxsplit=4)[-4:] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        ["1", "1.00", "1.00", "1.00"],  # the other target, from the mean of the two
        ["2", "1.08", "0.67", "1.50"],  # from the other seed
        ["3", "1.00", "0.83", "1.25"],  # each from the other target
    ]
