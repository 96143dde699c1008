"""Exported models with their tokenizer and task, against the task's own predictions of PyTorch's scores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from obert.deployment.export import export_onnx
from obert.experiment.schema import Model
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.models.encoders import load_pretrained, load_tokenizer, load_trained, save
from obert.sparse import SparseModel
from obert.training.features import Features as Encoded
from obert.training.prediction import predict_logits

ROOT = Path(__file__).parents[2]
TINY = "tests/data/tiny_bert"
LABELS = ("bad", "good", "so so")
TEXTS = [
    "a wonderful film",
    "dull",
    "the film is dull and long and the film is long and dull and it goes on and on and on without any end at all",
    "not so wonderful, but not so dull",
]
PAIRS = [*zip(TEXTS, reversed(TEXTS), strict=True)]
CONTEXT = " ".join(f"Town {i} lies in the state {i % 3} and has {i}00 people." for i in range(9))
QUESTIONS = [("How many people has town 3?", CONTEXT), (" Where does it lie? " + "and where else " * 9, CONTEXT[:60])]
CHOICES = [
    {"question": "what is long?", "choices": ["a film", "the end of it", "a road"], "context": TEXTS[2]},
    {"question": "who is dull?", "choices": ["nobody", "everybody", "the film and the road"], "context": "It is so."},
]
OPTIONS = {"source": "nowhere", "max_length": 24}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """Puts a random model of a task into a folder, as a user would copy it to another machine; each is made once.

    Returns its task and the model.
    """
    made = {}

    def put(folder, name, options, classes, decided=None):
        key = name, str(options), classes
        if key not in made:
            home = tmp_path_factory.mktemp(name)
            made[key] = home, *export(home, name, options, classes)
        source, task, network = made[key]
        shutil.copytree(source, folder, dirs_exist_ok=True)
        record = {"key": {"task": name}, "spec": {"task": task.model_dump(mode="json")}, "details": {}}
        if decided:
            record["details"]["decided"] = decided
        (folder / "metrics.json").write_text(json.dumps(record))
        return task, network

    return put


def export(folder, name, options, classes):
    task = registry.load("tasks", name).model_validate(OPTIONS | options)
    torch.manual_seed(3)
    network, tokenizer = load_pretrained(Model(source=str(ROOT / TINY)), task.head, classes)
    with torch.no_grad():
        for part, parameter in network.named_parameters():
            parameter.mul_(3 if part.startswith("bert.") else 50)  # or all texts would be alike to it
    save(network, tokenizer, folder)
    network = load_trained(folder, task.head, attn_implementation="eager")
    export_onnx(network, task.head, folder / "model.onnx", tokenizer.model_input_names)
    return task, network


def expected(task, network, folder, rows, features=None):
    """The task's scores and predictions of these rows."""
    rows = [{"id": str(number), **row} for number, row in enumerate(rows)]
    data = Encoded.encode(task, Dataset.from_list(rows, features), load_tokenizer(folder))
    logits = predict_logits(network, data, 4)
    return logits, task.predict(logits, data.features, data.examples)


def with_labels(columns):
    return Features({"id": Value("string"), **columns, "label": ClassLabel(names=list(LABELS))})


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_classes_of_texts(deployed, root, tmp_path, batch_size):
    task, network = deployed(tmp_path, "classification", {"text": "text"}, LABELS)
    rows = [{"text": text, "label": 0} for text in TEXTS]
    logits, right = expected(task, network, tmp_path, rows, with_labels({"text": Value("string")}))
    found = SparseModel.from_run(tmp_path, threads=1).predict(TEXTS, batch_size)
    assert [one["label"] for one in found] == [row["prediction"] for row in right]
    assert len({one["label"] for one in found}) > 1
    probabilities = logits[0].softmax(-1)
    for one, row in zip(found, probabilities, strict=True):
        assert list(one["probabilities"]) == list(LABELS)
        assert list(one["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert one["probability"] == max(one["probabilities"].values())


def test_classes_of_pairs(deployed, root, tmp_path):
    task, network = deployed(tmp_path, "classification", {"text": ["first", "second"]}, LABELS)
    rows = [{"first": one, "second": two, "label": 0} for one, two in PAIRS]
    columns = {"first": Value("string"), "second": Value("string")}
    _, right = expected(task, network, tmp_path, rows, with_labels(columns))
    found = SparseModel.from_run(tmp_path, threads=1).predict(PAIRS)
    assert [one["label"] for one in found] == [row["prediction"] for row in right]


def test_numbers_of_texts(deployed, root, tmp_path):
    task, network = deployed(tmp_path, "regression", {"text": "text"}, ())
    _, right = expected(task, network, tmp_path, [{"text": text, "label": 0.5} for text in TEXTS])
    found = SparseModel.from_run(tmp_path, threads=1).predict(TEXTS)
    assert [one["value"] for one in found] == pytest.approx([row["prediction"] for row in right], abs=1e-4)


def answers(deployed, name, tmp_path, decided=None):
    options = {"max_length": 48, "doc_stride": 8}
    task, network = deployed(tmp_path, name, options, (), decided)
    task = task.model_copy(update=decided or {})
    rows = [
        {"question": question, "context": context, "answers": {"text": ["lies"], "answer_start": [7]}}
        for question, context in QUESTIONS
    ]
    _, right = expected(task, network, tmp_path, rows)
    return right, SparseModel.from_run(tmp_path, threads=1).predict(QUESTIONS)


def test_answers_to_questions_whose_context_takes_several_windows(deployed, root, tmp_path):
    right, found = answers(deployed, "squad", tmp_path)
    assert [one["answer"] for one in found] == [row["prediction"] for row in right]
    for (_, context), one in zip(QUESTIONS, found, strict=True):
        assert one["answer"] == context[one["start"] : one["stop"]] != ""
        assert 0 < one["score"] <= 1


@pytest.mark.parametrize(("threshold", "empty"), [(1e9, False), (-1e9, True)])
def test_a_question_may_have_no_answer(deployed, root, tmp_path, threshold, empty):
    """The threshold is what the trained model decided."""
    right, found = answers(deployed, "squad_v2", tmp_path, {"null_threshold": threshold})
    assert [one["answer"] for one in found] == [row["prediction"] for row in right]
    assert [one["answer"] == "" for one in found] == [empty] * 2
    assert [one["start"] is None for one in found] == [empty] * 2


def test_tags_of_words(deployed, root, tmp_path):
    tags = ("O", "B-PER", "I-PER")
    task, network = deployed(tmp_path, "tagging", {"max_length": 16}, tags)
    columns = {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=list(tags)))}
    rows = [{"tokens": text.split(), "ner_tags": [0] * len(text.split())} for text in TEXTS]
    _, right = expected(task, network, tmp_path, rows, Features(columns))
    found = SparseModel.from_run(tmp_path, threads=1).predict(TEXTS)
    assert [one["labels"] for one in found] == [row["prediction"] for row in right]
    assert [one["words"] for one in found] == [text.split() for text in TEXTS]
    assert len({label for one in found for label in one["labels"]}) > 1
    assert all(1 / 3 <= value <= 1 for one in found for value in one["probabilities"])


@pytest.mark.parametrize("name", ["race", "commonsense_qa"])
def test_choices_of_questions(deployed, root, tmp_path, name):
    task, network = deployed(tmp_path, name, {"max_length": 64}, ())
    logits, right = expected(task, network, tmp_path, [{**one, "label": 0} for one in CHOICES])
    found = SparseModel.from_run(tmp_path, threads=1).predict(CHOICES, batch_size=4)
    assert [one["choice"] for one in found] == [row["prediction"] for row in right]
    for one, row in zip(found, logits[0].softmax(-1), strict=True):
        assert one["probabilities"] == pytest.approx(row.tolist(), abs=1e-5)


def test_nothing_gives_nothing(deployed, root, tmp_path):
    for name in ("classification", "race"):
        deployed(tmp_path / name, name, {"text": "text"} if name == "classification" else {}, LABELS)
        assert SparseModel.from_run(tmp_path / name, threads=1).predict([]) == []


@pytest.mark.parametrize(
    ("name", "options", "inputs", "message"),
    [
        ("classification", {"text": "text"}, "one text", r"write \[text\]"),
        ("classification", {"text": "text"}, ["a", 5], "input 1 is of type int: a text is needed"),
        ("classification", {"text": ["a", "b"]}, ["ab"], "input 0 is a text: a pair of texts is needed"),
        ("squad", {"max_length": 48, "doc_stride": 8}, [("why?",)], "type tuple of 1: a pair of question and context"),
        ("race", {}, [{"question": "why?", "choices": []}], "input 0 is of type dict: a mapping of a text `question`"),
    ],
)
def test_inputs_that_are_none_are_named(deployed, root, tmp_path, name, options, inputs, message):
    deployed(tmp_path, name, options, LABELS)
    with pytest.raises(UserError, match=message):
        SparseModel.from_run(tmp_path, threads=1).predict(inputs)


def test_what_is_missing_or_damaged_is_named(deployed, root, tmp_path):
    deployed(tmp_path, "classification", {"text": "text"}, LABELS)
    (tmp_path / "tokenizer.json").rename(tmp_path / "moved.json")
    with pytest.raises(UserError, match=r"has no tokenizer\.json, and the run that it was made from is not there"):
        SparseModel.from_run(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        SparseModel.from_run(tmp_path)
    (tmp_path / "moved.json").replace(tmp_path / "tokenizer.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json, the record of an exported run, is damaged"):
        SparseModel.from_run(tmp_path)
    (tmp_path / "metrics.json").write_text('{"key": {}}')
    with pytest.raises(UserError, match="lacks the task"):
        SparseModel.from_run(tmp_path)
    with pytest.raises(UserError, match=r"is missing\. Name the folder of a run of the stage `export`"):
        SparseModel.from_run(tmp_path / "nowhere")


def test_a_head_without_predictions_is_named(deployed, root, tmp_path):
    deployed(tmp_path, "winogrande", {"scoring": "masked_lm"}, ())
    with pytest.raises(UserError, match="models with the head MaskedChoice have no predictions"):
        SparseModel.from_run(tmp_path)


def test_texts_are_classified_without_torch_and_transformers(deployed, root, tmp_path):
    """What a deployment would have to install is what the documents say."""
    deployed(tmp_path, "classification", {"text": "text"}, LABELS)
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'datasets', 'onnx', 'pandas'): sys.modules[name] = None\n"
        "from obert.sparse import SparseModel\n"
        f"print(SparseModel.from_run({str(tmp_path)!r}, threads=1).predict(['a film'])[0]['label'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in LABELS


def test_the_tokenizer_of_a_run_is_found_where_it_was_trained(deployed, root, tmp_path):
    """A run's folder holds the export alone; the model that it was made from lies in another run's."""
    source, run = "downstream/mine/gradual/obert-0.8/seed0", tmp_path / "export/mine/gradual/obert-0.8/seed0"
    trained = tmp_path / source / "model"
    deployed(trained, "classification", {"text": "text"}, LABELS)
    run.mkdir(parents=True)
    record = json.loads((trained / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**record, "inputs": {source: "a hash"}}))
    shutil.move(trained / "model.onnx", run)
    assert len(SparseModel.from_run(run, threads=1).predict(TEXTS)) == len(TEXTS)
