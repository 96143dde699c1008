"""The card that goes with a model, and that the model can be loaded as the card says."""

import re
from contextlib import chdir

import pytest
import torch
import transformers
import yaml
from planned import at, made

import obert
from obert.commands import card
from obert.foundation.errors import UserError
from obert.models.encoders import load_trained
from obert.report.model_card import write_model_card

TASK = "movie_reviews"


def page(run):
    return write_model_card(run).read_text()


@pytest.fixture
def pruned(plan):
    run = plan.find("downstream", task=TASK, recipe="smoke_gradual", method="obert")
    made(run)
    return run


def test_a_pruned_model_loads_as_its_card_says(pruned):
    record, text = made(pruned), page(pruned)
    data = yaml.safe_load(text.split("---")[1])
    [result] = data["model-index"][0]["results"]
    assert result["metrics"] == [{"type": name, "value": score.value} for name, score in record.metrics.items()]
    zeros = record.sparsity.parts["encoder"].zeros / record.sparsity.parts["encoder"].size
    assert re.search(rf"encoder +\| [\d,]+ +\| {100 * zeros:.2f} %", text)
    for said in ("obert", "smoke_gradual", "**Seed**: 0", "tiny_bert", f"{record.model['parameters']:,}"):
        assert said in text
    low, high = map(float, re.search(r"([\d.]+) to ([\d.]+)", text).groups())
    assert low <= record.metrics[record.primary_metric].value <= high
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    with chdir(pruned.folder / "model"):
        exec(code, names)
    network = load_trained(pruned.folder / "model")
    [found] = names["model"](["a lovely film"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(pruned.folder / "model")
    best = int(network(**tokenizer("a lovely film", return_tensors="pt")).logits.argmax())
    assert found["label"] == network.config.id2label[best] in pruned.task.load()["train"].features["label"].names


def test_the_words_of_a_local_folder_stay_here(pruned):
    """A card is published, so that it names no folder of this machine."""
    assert pruned.model.source == "tests/data/tiny_bert"
    assert "tests/data" not in page(pruned)


def test_a_model_in_8_bits_is_loaded_in_8_bits(plan, pruned):
    run = plan.find("quantize", task=TASK, recipe="smoke_quantize@smoke_gradual")
    made(run)
    assert "obert.load(folder)" in page(run) and "library_name: obert" in page(run)
    network, tokenizer = obert.load(run.folder)
    inputs = tokenizer("a lovely film", return_tensors="pt")
    with torch.no_grad():
        expected = load_trained(run.folder / "model", run.task.head)(**inputs).logits
        assert torch.equal(network(**inputs).logits, expected)
    with pytest.raises(ValueError, match="Could not load model"):
        transformers.pipeline("text-classification", model=str(run.folder / "model"))
    with pytest.raises(UserError, match="holds no model"):
        obert.load(run.folder / "nowhere")


def test_a_task_without_a_pipeline_says_how_else(plan):
    teacher = next(run for run in plan.of_stage("teacher") if run.task.head.pipeline is None)
    [code] = re.findall(r"```python\n(.*?)```", page(teacher), re.DOTALL)
    names = {}
    with chdir(teacher.folder / "model"):
        exec(code, names)
    assert type(names["model"]).__name__ == names["model"].config.architectures[0]


def test_a_benchmark_adds_the_speeds_with_the_machine(plan):
    run = plan.of_stage("benchmark")[0]
    trained = run.sources["model"].sources["model"]
    made(trained)
    made(at(plan, trained, "export"))
    assert "## Speed" not in page(trained)
    record = made(run)
    assert write_model_card(run) == trained.folder / "model" / "README.md"
    text = page(run)
    latency = record.metrics["onnxruntime_latency_p50_ms"].value
    assert re.search(rf"onnxruntime +\| {latency:.2f}", text)
    assert write_model_card(run.sources["model"]) is not None  # an export alone has no speeds
    said = card.run(plan, {"task": trained.key.task})
    assert (
        str(trained.folder / "model" / "README.md") in said
        and "## Speed" in (trained.folder / "model" / "README.md").read_text()
    )


def test_what_has_not_been_run_has_no_card(plan):
    with pytest.raises(UserError, match="no finished run"):
        card.run(plan, {"task": "city_qa", "method": "obert"})
