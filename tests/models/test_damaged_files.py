"""A model whose files are damaged, or do not belong together, is one message; no layer of it is ever random."""

import json
import shutil

import pytest
import torch
from architectures.models import NAMES, make
from safetensors.torch import load_file, save_file
from samples import HEADS
from transformers import AutoTokenizer

from obert.commands import check
from obert.experiment.schema import Model
from obert.foundation.errors import UserError
from obert.heads.sequence_classification import SequenceClassification
from obert.models.encoders import load_pretrained, load_trained, save

HEAD, CLASSES, WEIGHTS = SequenceClassification(), ("0", "1"), "model.safetensors"
LAYER = "encoder.layer.1."


def edit(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def without(part):
    return lambda folder: edit(folder, lambda t: [t.pop(name) for name in list(t) if part in name])


def with_further_layer(folder):
    edit(
        folder, lambda t: t.update({n.replace(LAYER, "encoder.layer.2."): t[n].clone() for n in list(t) if LAYER in n})
    )


def with_value(value, shape=(32, 64)):
    name = "encoder.layer.0.output.dense.weight"
    return lambda folder: edit(folder, lambda t: t.update({name: torch.full(shape, value)}))


def cut_to(size):
    return lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def with_words(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{i}" for i in range(20)])
    tokenizer.save_pretrained(folder)


def without_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def with_config(**changes):
    def change(folder):
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**content, **changes}))

    return change


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
DAMAGES = {
    "empty": (cut_to(0), "the weights are damaged or incomplete"),
    "cut off": (cut_to(60_000), "the weights are damaged or incomplete"),
    "cut off in its header": (cut_to(100), "the weights are damaged or incomplete"),
    "a pointer of Git LFS": (written(WEIGHTS, POINTER), "the weights are damaged or incomplete"),
    "no file": (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded (safetensors only)"),
    "nothing in it": (without(""), "the file lacks bert.embeddings.LayerNorm.bias, "),
    "a layer less": (without(LAYER), f"the file lacks bert.{LAYER}attention.output.LayerNorm.bias, "),
    "a weight less": (without(f"{LAYER}output.dense.weight"), f"the file lacks bert.{LAYER}output.dense.weight, which"),
    "no embeddings": (without("word_embeddings"), "the file lacks bert.embeddings.word_embeddings.weight, which"),
    "a layer more": (with_further_layer, "the file has encoder.layer.2.attention.output.LayerNorm.bias, "),
    "more layers in config.json": (with_config(num_hidden_layers=3), "the file lacks bert.encoder.layer.2."),
    "another shape": (
        with_value(0.0, (3, 3)),
        "has shape [3, 3] in the file, and config.json and task ask for [32, 64]",
    ),
    "another vocabulary": (with_config(vocab_size=99), "has shape [280, 32] in the file, and config.json and task"),
    "NaN": (with_value(float("nan")), "encoder.layer.0.output.dense.weight holds what is no finite number"),
    "infinity": (with_value(float("inf")), "encoder.layer.0.output.dense.weight holds what is no finite number"),
    "config.json is no JSON": (written("config.json", b"{"), "cannot be loaded"),
    "config.json not UTF-8": (written("config.json", b'{"a": "\xff"}'), "cannot be loaded"),
    "tokenizer.json is no JSON": (written("tokenizer.json", b"{"), "the tokenizer of "),
    "tokenizer.json is another JSON": (written("tokenizer.json", b"{}"), "the tokenizer of "),
    "tokenizer.json not UTF-8": (written("tokenizer.json", b"\xff"), "the tokenizer of "),
    "tokenizer_config.json is a list": (written("tokenizer_config.json", b"[]"), "the tokenizer of "),
    "no tokenizer": (without_tokenizer, "has no tokenizer: tokenizer.json is expected beside the model"),
    "a larger tokenizer": (with_words, "embeddings for tokens 0 to 279: they do not belong together"),
}
ONLY_WHERE_READ = {"NaN", "infinity"}  # `check` reads no weights, only what there is


@pytest.fixture
def model(root, tmp_path):
    return shutil.copytree(root / "tests/data/tiny_bert", tmp_path / "model")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_told_where_it_is_loaded_and_before_by_check(model, name):
    damage, expected = DAMAGES[name]
    damage(model)
    loads = [lambda: load_pretrained(Model(source=str(model)), HEAD, CLASSES)]
    if name not in ONLY_WHERE_READ:
        loads.append(lambda: check._model(Model(source=str(model))))
    for load in loads:
        with pytest.raises(UserError) as error:
            load()
        told = str(error.value).replace("lacks encoder", "lacks bert.encoder").replace("lacks emb", "lacks bert.emb")
        assert expected in told
        assert str(model) in told or "tokenizer has a token 299 ('word19')" in told


@pytest.mark.parametrize("name", ["cut off", "a layer less", "a weight less", "NaN", "another shape", "a layer more"])
def test_a_damaged_model_of_a_run_is_told_with_its_folder(model, tmp_path, name):
    save(*load_pretrained(Model(source=str(model)), HEAD, CLASSES), tmp_path / "run")
    edit(tmp_path / "run", lambda t: [t.update({n.removeprefix("bert."): t.pop(n)}) for n in list(t)])
    DAMAGES[name][0](tmp_path / "run")
    if name != "cut off":
        edit(tmp_path / "run", lambda t: [t.update({f"bert.{n}": t.pop(n)}) for n in list(t) if "classifier" not in n])
    with pytest.raises(UserError) as error:
        load_trained(tmp_path / "run", HEAD)
    assert str(error.value).startswith(str(tmp_path / "run"))


@pytest.mark.parametrize("part", ["classifier", "pooler"])
def test_a_trained_model_has_its_own_head(model, tmp_path, part):
    """What is random in a new head would be so in a teacher, without a word."""
    save(*load_pretrained(Model(source=str(model)), HEAD, CLASSES), tmp_path / "run")
    without(part)(tmp_path / "run")
    with pytest.raises(UserError, match=f"the file lacks .*{part}"):
        load_trained(tmp_path / "run", HEAD)


def test_a_head_of_as_many_classes_as_the_task_has(model, tmp_path):
    save(*load_pretrained(Model(source=str(model)), HEAD, ("a", "b", "c")), tmp_path / "three")
    with pytest.raises(UserError, match=r"classifier\.bias has shape \[3\] in the file.* ask for \[2\]"):
        load_pretrained(Model(source=str(tmp_path / "three")), HEAD, CLASSES)


def test_a_quantised_model_is_no_pre_trained_one(model, tmp_path):
    from obert.quantization.fake import quantize

    network, tokenizer = load_pretrained(Model(source=str(model)), HEAD, CLASSES)
    save(quantize(network), tokenizer, tmp_path / "run")
    load_trained(tmp_path / "run", HEAD)
    with pytest.raises(UserError, match=r"no file named model\.safetensors"):
        load_pretrained(Model(source=str(tmp_path / "run")), HEAD, CLASSES)


OTHERS = sorted({*NAMES} - {"bert", "albert", "modernbert"})


@pytest.mark.parametrize(
    "name", ["bert", "albert", "modernbert", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_heads_alone_may_be_new(name, tmp_path):
    """Each head on an encoder without one, on one with each other head, and on its own; then a part is missing."""
    make(name, tmp_path / "bare")
    for kind, head in HEADS.items():
        save(*load_pretrained(Model(source=str(tmp_path / "bare")), head, CLASSES), tmp_path / kind)
        load_trained(tmp_path / kind, head)
    for kind in HEADS.keys() - {"regression"}:  # of one output
        load_pretrained(Model(source=str(tmp_path / kind)), HEAD, CLASSES)
    tensors = load_file(tmp_path / "bare" / WEIGHTS)
    of_head = [n for n in tensors if n.startswith("pooler.")]
    for lacking in (*list(tensors)[::9], *of_head):
        rest = {n: t for n, t in tensors.items() if n != lacking}
        save_file(rest, tmp_path / "bare" / WEIGHTS, metadata={"format": "pt"})
        if lacking in of_head:
            load_pretrained(Model(source=str(tmp_path / "bare")), HEAD, CLASSES)
        else:
            with pytest.raises(UserError, match="which would be random"):
                load_pretrained(Model(source=str(tmp_path / "bare")), HEAD, CLASSES)
