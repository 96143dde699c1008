"""`obert benchmark` on models that come from anywhere: folders in float and 8 bits, ONNX files, any head."""

import csv
import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from samples import HEADS, padded_batches, with_new_head

from obert.commands.cli import main
from obert.deployment.export import export_onnx
from obert.engines.onnxruntime import OnnxRuntime
from obert.engines.openvino import OpenVino
from obert.foundation import registry
from obert.heads import INPUT_COLUMNS
from obert.models.encoders import load_tokenizer, load_trained, save
from obert.quantization.fake import integer_weight, quantize
from obert.quantization.quantizers import freeze_scales
from obert.records import load
from obert.records.load import Load

TINY = "tests/data/tiny_bert"
QUICK = ["--batch-sizes", "2", "--lengths", "8", "--threads", "1", "--iterations", "5", "--warmup", "1"]
IDLE, BUSY = Load(average=0.1, in_use=0.2, cores=4), Load(average=6.25, in_use=3.5, cores=4)


@pytest.fixture(autouse=True)
def idle(root, monkeypatch):
    """Whatever else runs beside the tests."""
    monkeypatch.setattr(load.Load, "now", classmethod(lambda cls: IDLE))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model for questions as a folder, pruned, pruned and in 8 bits, and the export of the first."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network, tokenizer = with_new_head(TINY, HEADS["question_answering"]), load_tokenizer(TINY)
    save(network, tokenizer, folder / "dense")
    exported = with_new_head(folder / "dense", HEADS["question_answering"], attn_implementation="eager")
    export_onnx(exported, HEADS["question_answering"], folder / "dense.onnx", INPUT_COLUMNS)
    with torch.no_grad():
        for layer in encoder_layers(network):
            layer.weight.view(-1)[::2] = 0
    save(network, tokenizer, folder / "pruned")
    quantize(network).eval()
    generator = np.random.default_rng(0)
    with torch.no_grad():
        rows = {"input_ids": [generator.integers(5, 280, n).tolist() for n in (9, 30, 4, 25)]}
        rows["attention_mask"] = [[1] * len(row) for row in rows["input_ids"]]
        for inputs in padded_batches(rows, 0):
            network(**inputs)
    save(freeze_scales(network), tokenizer, folder / "small")
    return folder


def encoder_layers(network):
    return [module for module in network.bert.encoder.modules() if isinstance(module, torch.nn.Linear)]


def linear_layers(network):
    return [module for module in network.modules() if isinstance(module, torch.nn.Linear)]


def run(capsys, tmp_path, *arguments, options=QUICK):
    assert main(["benchmark", *map(str, arguments), *options, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    return said.out, json.loads((tmp_path / "out" / "speeds.json").read_text(encoding="utf-8"))


def fails(capsys, *arguments):
    assert main(["benchmark", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.count("obert benchmark: ") == 1
    return said


def test_a_folder_is_timed_in_every_engine_of_this_machine(models, capsys, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (models / "dense").rglob("*")}
    options = ["--batch-sizes", "1", "2", "--lengths", "8", "16", "--threads", "1", "--iterations", "5"]
    out, record = run(capsys, tmp_path, models / "dense", options=options)
    assert {path: path.stat().st_mtime_ns for path in (models / "dense").rglob("*")} == before
    engines = ["onnxruntime", "openvino", "pytorch", "sparse"]
    assert [(t["engine"], t["batch_size"], t["sequence_length"]) for t in record["timings"]] == [
        (engine, size, length) for engine in engines for length in (8, 16) for size in (1, 2)
    ]
    for timing in record["timings"]:
        assert len(timing["seconds"]) == len(timing["over_seconds"]) == timing["rounds"] == 5
        median, over = np.median(timing["seconds"]), np.median(timing["over_seconds"])
        assert timing["p50_ms"] == pytest.approx(1e3 * median)
        assert timing["items_per_second"] == pytest.approx(timing["batch_size"] / median)
        assert timing["over"] == "ONNX Runtime"
        assert timing["over_p50_ms"] == pytest.approx(1e3 * over)
        assert timing["speedup"] == pytest.approx(over / median)
        assert f"{1e3 * median:,.2f}" in out and f"{1e3 * over:,.2f}" in out
    assert record["machine"]["cpu"] in out and ", ".join(record["machine"]["isa_flags"]) in out
    assert "Speed-ups are over dense in ONNX Runtime, whose median in the same 5 rounds is 'base ms'." in out
    with (tmp_path / "out" / "speeds.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p50_ms"]) for row in rows] == [timing["p50_ms"] for timing in record["timings"]]
    assert (tmp_path / "out" / "speeds.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["speeds.csv", "speeds.json", "speeds.png"]


def test_zeros_and_8_bit_weights_are_named_of_folders_and_files(models, capsys, tmp_path):
    given = [models / "pruned", models / "small"]
    against = ["--against", models / "dense.onnx", "--engines", "sparse", "onnxruntime"]
    out, record = run(capsys, tmp_path, *given, *against)
    pruned, small, dense = record["models"]
    network = with_new_head(models / "pruned", HEADS["question_answering"])
    weights = torch.cat([layer.weight.detach().flatten() for layer in linear_layers(network)])
    assert pruned["linear_weights"] == len(weights)
    assert pruned["zeros"] == pytest.approx(float((weights == 0).float().mean())) and 0.45 < pruned["zeros"] < 0.5
    network = load_trained(models / "small", HEADS["question_answering"])
    integers = torch.cat([integer_weight(layer).flatten() for layer in linear_layers(network)])
    assert small["zeros"] == pytest.approx(float((integers == 0).float().mean()))
    assert [model["in_8_bits"] for model in record["models"]] == [0, 1, 0]
    assert dense["zeros"] == 0
    assert record["base"] == dense["name"] == "dense.onnx"
    assert {(t["engine"], t["model"]) for t in record["timings"]} == {
        (engine, model) for engine in ("sparse", "onnxruntime") for model in ("pruned", "small", "dense.onnx")
    }
    own = [t for t in record["timings"] if (t["engine"], t["model"]) == ("onnxruntime", "dense.onnx")]
    assert own[0]["speedup"] == 1 and own[0]["seconds"] == own[0]["over_seconds"]
    assert "Speed-ups are over dense.onnx in ONNX Runtime" in out


def test_engines_that_cannot_time_a_model_are_named(models, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(OpenVino, "integer_product_error", lambda: 70742)
    engines = ["--engines", "onnxruntime", "pytorch", "openvino", "semi_structured"]
    out, record = run(capsys, tmp_path, models / "small", models / "dense.onnx", *engines)
    assert "pytorch did not time small. PyTorch runs a quantised model's rounding in float32" in out
    assert "pytorch did not time dense.onnx. PyTorch runs the folder of a model, and this is an ONNX file." in out
    assert str(tmp_path) not in out.replace(str(tmp_path / "out"), "")
    assert "openvino did not time small. OpenVINO's products of 8-bit integers are wrong on this processor" in out
    assert {(t["engine"], t["model"]) for t in record["timings"]} == {
        ("onnxruntime", "small"), ("onnxruntime", "dense.onnx"), ("openvino", "dense.onnx"),
    }  # fmt: skip
    if reason := registry.load("engines", "semi_structured").unavailable_reason():
        assert f"semi_structured was not timed. {reason}." in out


def test_an_engine_of_an_environment_of_its_own_is_timed_where_it_is_named(models, capsys, tmp_path):
    reason = registry.load("engines", "deepsparse").unavailable_reason()
    engines = ["--engines", "onnxruntime", "deepsparse"]
    out, record = run(capsys, tmp_path, models / "dense.onnx", *engines)
    assert ("deepsparse was not timed." in out) == bool(reason)
    if reason:
        pytest.skip(reason)
    assert {timing["engine"] for timing in record["timings"]} == {"onnxruntime", "deepsparse"}


def test_outputs_are_compared_before_an_engine_is_timed(models, capsys, tmp_path, monkeypatch):
    right = OpenVino.run

    def wrong(self, inputs):
        return [output + 0.5 for output in right(self, inputs)]

    monkeypatch.setattr(OpenVino, "run", wrong)
    out, record = run(capsys, tmp_path, models / "dense.onnx", "--engines", "openvino", "onnxruntime")
    assert (
        "openvino did not time dense.onnx. OpenVINO's outputs differ from ONNX Runtime's by up to 0.5; allowed is 0.001"
        in out
    )
    assert {timing["engine"] for timing in record["timings"]} == {"onnxruntime"}

    right = OnnxRuntime.run
    monkeypatch.setattr(OnnxRuntime, "run", wrong)
    assert "the exported model is not the one in the folder" in fails(capsys, models / "dense", *QUICK)


def test_an_engine_that_crashes_leaves_the_others(models, capsys, tmp_path, monkeypatch):
    def crash(*_):
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(OpenVino, "__init__", crash)
    out, record = run(capsys, tmp_path, models / "dense.onnx", "--engines", "openvino", "sparse")
    assert "openvino did not time dense.onnx. MemoryError: std::bad_alloc." in out
    assert {timing["engine"] for timing in record["timings"]} == {"sparse"}
    said = fails(capsys, models / "dense.onnx", "--engines", "openvino", *QUICK)
    assert "no engine could time anything. openvino did not time dense.onnx. MemoryError: std::bad_alloc." in said


def test_an_engine_that_fails_later_leaves_what_was_timed(models, capsys, tmp_path, monkeypatch):
    right = OpenVino.run

    def short(self, inputs):
        if inputs["input_ids"].shape[1] > 8:
            raise ValueError("too long\nfor this engine")
        return right(self, inputs)

    monkeypatch.setattr(OpenVino, "run", short)
    options = [*QUICK, "--lengths", "8", "16", "--engines", "openvino"]
    out, record = run(capsys, tmp_path, models / "dense.onnx", options=options)
    assert [timing["sequence_length"] for timing in record["timings"]] == [8]
    assert "openvino failed with 1 thread: ValueError: too long." in out


def test_a_file_of_fixed_size_is_timed_in_that_alone(models, capsys, tmp_path):
    model = onnx.load(models / "dense.onnx")
    for declared in model.graph.input:
        for size, value in zip(declared.type.tensor_type.shape.dim, (2, 8), strict=True):
            size.dim_value = value
    onnx.save(model, tmp_path / "fixed.onnx")
    _, record = run(capsys, tmp_path, tmp_path / "fixed.onnx", "--engines", "onnxruntime")
    assert len(record["timings"]) == 1
    said = fails(capsys, tmp_path / "fixed.onnx", *QUICK, "--batch-sizes", "2", "4")
    assert (
        "fixed.onnx is made for input_ids of 2 x 8 alone: give --batch-sizes 2, or export it with dynamic axes" in said
    )
    assert "give --lengths 8" in fails(capsys, tmp_path / "fixed.onnx", *QUICK, "--lengths", "9")


@pytest.mark.parametrize("head", ["sequence_classification", "token_classification", "masked_language_model"])
def test_any_head(head, capsys, tmp_path):
    network = with_new_head(TINY, HEADS[head])
    save(network, load_tokenizer(TINY), tmp_path / "model")
    _, record = run(capsys, tmp_path, tmp_path / "model", "--engines", "onnxruntime", "pytorch")
    assert {timing["engine"] for timing in record["timings"]} == {"onnxruntime", "pytorch"}


def test_a_checkpoint_without_a_head_and_a_runs_folder(capsys, tmp_path):
    """The pre-trained file of the tests has no weights of a task, and lies below `model`, as those of a run do."""
    shutil.copytree(TINY, tmp_path / "run" / "model")
    _, record = run(capsys, tmp_path, tmp_path / "run", "--engines", "onnxruntime", "pytorch")
    assert {timing["engine"] for timing in record["timings"]} == {"onnxruntime", "pytorch"}


def changed_config(folder, tmp_path, **changes):
    shutil.copytree(folder, tmp_path / "changed")
    path = tmp_path / "changed" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    return path.parent


def test_what_is_no_model_is_told_before_any_work(models, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("obert.deployment.given.prepare", None)
    assert "nowhere: no such file or folder" in fails(capsys, "nowhere")
    assert f"{tmp_path} has no config.json" in fails(capsys, tmp_path)
    (tmp_path / "model.onnx").write_text("notes")
    assert "It holds model.onnx: name that file" in fails(capsys, tmp_path)
    weights = models / "dense" / "model.safetensors"
    assert f"is one file of a model: name its folder, {weights.parent}" in fails(capsys, weights)
    shutil.copytree(models / "dense", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    said = fails(capsys, tmp_path / "pickled")
    assert "pytorch_model.bin, a pickle" in said and "safe_serialization=True" in said
    (tmp_path / "pickled" / "pytorch_model.bin").unlink()
    assert "has no weights: model.safetensors is expected" in fails(capsys, tmp_path / "pickled")
    odd = changed_config(models / "dense", tmp_path, architectures=["MyOwnBert"])
    assert "the class MyOwnBert, which Transformers does not have" in fails(capsys, odd)


def test_what_cannot_be_run_is_told_in_one_message(models, capsys, tmp_path):
    (tmp_path / "notes.onnx").write_text("not a model")
    assert "notes.onnx is not a readable ONNX model" in fails(capsys, tmp_path / "notes.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert "it has no operators" in fails(capsys, tmp_path / "empty.onnx")
    too_long = ["--lengths", "8", "129", "--threads", "1"]
    assert "--lengths 129: the model has positions for 128 tokens" in fails(capsys, models / "dense", *too_long)
    said = fails(capsys, models / "dense.onnx", *too_long)
    assert "dense.onnx cannot be run by ONNX Runtime on 129 tokens" in said
    shutil.copytree(models / "dense", tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    (tmp_path / "mute" / "tokenizer_config.json").unlink()
    assert "tokenizer" in fails(capsys, tmp_path / "mute", *QUICK)
    choices = changed_config(models / "dense", tmp_path, architectures=["BertForMultipleChoice"])
    assert "does not run on input_ids [sequences, tokens]" in fails(capsys, choices, *QUICK)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--engines", "onnxruntim"], "Did you mean 'onnxruntime'?"),
        (["--batch-sizes", "0"], "greater than 0"),
        (["--iterations", "2"], "greater than or equal to 5"),
        (["--threads", "4096"], "--threads 4096: this process may use"),
        (["--task", "sst2"], "--task names a run of an experiment"),
        (["--output", "/dev/null/out"], "--output: /dev/null/out cannot be written"),
        (["--against", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_mistakes_are_told_before_any_work(models, capsys, monkeypatch, options, expected):
    monkeypatch.setattr("obert.deployment.given.prepare", None)
    assert expected in fails(capsys, models / "dense", *options)


def test_it_works_in_any_folder_and_replaces_nothing(models, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", str(models / "dense.onnx"), *QUICK, "--engines", "onnxruntime"]) == 0
    (written,) = (tmp_path / "results" / "speeds").iterdir()
    written = written.relative_to(tmp_path)
    assert f"written: {written}/speeds.csv, {written}/speeds.png, {written}/speeds.json" in capsys.readouterr().out
    assert "/ has no config.json" in fails(capsys, "/")


def test_options_without_a_model_are_a_mistake(capsys):
    assert "--lengths is for models that are named" in fails(capsys, "--lengths", "8")


def test_a_busy_machine_is_refused_unless_told_otherwise(models, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(load.Load, "now", classmethod(lambda cls: BUSY))
    said = fails(capsys, models / "dense.onnx", *QUICK)
    assert "3.5 of 4 cores in use, load average 6.25" in said and "say --busy" in said
    out, record = run(capsys, tmp_path, models / "dense.onnx", "--busy", "--engines", "onnxruntime")
    assert "Other work was running beside it" in out
    assert (record["busy"], record["load_average_before"], record["cores_in_use_before"]) == (True, 6.25, 3.5)


def test_names_tell_models_apart(models, capsys, tmp_path):
    given = [tmp_path / name for name in ("a/model.onnx", "b/x/seed0/model.onnx", "b/y/seed0/model.onnx", "c.onnx")]
    for path in given:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(models / "dense.onnx", path)
    _, record = run(capsys, tmp_path, *given, given[0], "--engines", "onnxruntime")
    names = ["a/model.onnx", "x/seed0/model.onnx", "y/seed0/model.onnx", "c.onnx"]
    assert [model["name"] for model in record["models"]] == names
    _, record = run(capsys, tmp_path, given[0], tmp_path / "b" / ".." / "a" / "model.onnx", "--engines", "onnxruntime")
    assert [model["name"] for model in record["models"]] == ["a/model.onnx"]
