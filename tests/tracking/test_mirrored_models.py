"""Exported models from MLflow: the same file, the same logits, whichever way they are loaded."""

from importlib.metadata import version

import mlflow
import onnx
import pytest
import torch
from mlflow import MlflowClient
from samples import WHOLE_AND_TOKENS, with_new_head
from tables.examples import record
from transformers import AutoTokenizer

from obert.deployment.export import export_onnx
from obert.deployment.parity import PARITY_TOLERANCE
from obert.foundation.files import file_hash
from obert.heads import INPUT_COLUMNS
from obert.models.encoders import load_tokenizer, save
from obert.records.record import write_record
from obert.tracking.fetch import fetch
from obert.tracking.mirror import mirror_run

TEXTS = ["a film that is well worth seeing", "no"]
FILES = {"MLmodel", "model.onnx", "python_env.yaml", "requirements.txt"}
OF_MLFLOW = {"registered_model_meta"}  # MLflow writes it when it downloads a model


@pytest.fixture(params=WHOLE_AND_TOKENS)
def exported(request, root, tmp_path):
    """The record of an export, its folder, and the model in the folder of the run that it is of."""
    tiny = root / "tests/data/tiny_bert"
    torch.manual_seed(0)
    head = WHOLE_AND_TOKENS[request.param]
    network = with_new_head(tiny, head, attn_implementation="eager")
    source = "teacher/movie_reviews/dense/dense/seed0"
    environment = {"python": "3.11.7", "packages": {name: version(name) for name in ("numpy", "onnx", "onnxruntime")}}
    teacher = write_record(tmp_path / "runs" / source, record("teacher", 90.0))
    made = record("export", inputs={source: file_hash(teacher)}, files=("model.onnx",), environment=environment)
    save(network, load_tokenizer(tiny), tmp_path / "runs" / source / "model")
    folder = tmp_path / "runs" / made.key.path
    export_onnx(network, head, folder / "model.onnx", INPUT_COLUMNS)
    write_record(folder, made)
    return made, folder, network


def _run(uri):
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("example").experiment_id])
    return run.info.run_id


def _models(uri):
    client = MlflowClient(uri)
    return list(client.search_logged_models([client.get_experiment_by_name("example").experiment_id]))


def _is_loaded_with_the_same_logits(exported, uri, monkeypatch, tmp_path):
    """Mirrors an export; its file, its tokenizer and its logits are then those of the model that was exported."""
    _, folder, network = exported
    assert mirror_run(folder, uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    address = f"runs:/{_run(uri)}/model"
    downloaded = tmp_path / "downloaded"
    mlflow.artifacts.download_artifacts(address, dst_path=str(downloaded))
    (place,) = downloaded.rglob("MLmodel")
    assert {path.name for path in place.parent.iterdir() if path.is_file()} - OF_MLFLOW == FILES
    assert file_hash(place.parent / "model.onnx") == file_hash(folder / "model.onnx")

    inputs = AutoTokenizer.from_pretrained(place.parent / "tokenizer")(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = network(**inputs, return_dict=False)
    predicted = mlflow.pyfunc.load_model(address).predict({name: tensor.numpy() for name, tensor in inputs.items()})
    outputs = [node.name for node in mlflow.onnx.load_model(address).graph.output]
    assert list(predicted) == outputs and len(outputs) == len(expected)
    for name, tensor in zip(outputs, expected, strict=True):
        torch.testing.assert_close(torch.tensor(predicted[name]), tensor, atol=PARITY_TOLERANCE, rtol=0)
    assert mlflow.onnx.load_model(address) == onnx.load(folder / "model.onnx")


def test_an_exported_model_is_loaded_with_its_tokenizer_and_gives_the_same_logits(exported, uri, monkeypatch, tmp_path):
    _is_loaded_with_the_same_logits(exported, uri, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["question_answering"], indirect=True)
def test_a_model_is_loaded_from_a_server(exported, server, monkeypatch, tmp_path):
    _is_loaded_with_the_same_logits(exported, server, monkeypatch, tmp_path)


def test_a_logged_model_is_found_by_what_it_is_and_goes_with_its_run(exported, uri, tmp_path):
    made, folder, _ = exported
    mirror_run(folder, uri)
    (first,) = _models(uri)
    assert (first.source_run_id, first.status.name) == (_run(uri), "READY")
    assert {"method": "dense", "task": "movie_reviews"}.items() <= first.tags.items()
    fetched = fetch(uri, "example", tmp_path / "fetched")
    assert [path.name for path in fetched.rglob("*") if path.is_file()] == ["metrics.json"]

    changed = made.model_copy(update={"wall_time_seconds": 7.0})
    write_record(folder, changed)
    assert mirror_run(folder, uri)
    (second,) = _models(uri)
    assert second.source_run_id == _run(uri) and second.model_id != first.model_id


def test_an_export_whose_file_is_gone_is_mirrored_without_it(exported, uri):
    _, folder, _ = exported
    (folder / "model.onnx").unlink()
    assert mirror_run(folder, uri)
    assert not _models(uri)
