"""Documents are packed into sequences; tokens are masked anew whenever a sequence is met."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from obert.data import packing
from obert.experiment.recipes import load_task
from obert.tasks.mlm import DIALOGUES
from obert.tasks.movie_reviews import FILE

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "tiny_bert")


def make(source, **options):
    return load_task("mlm", {"source": str(source), **options}, "the test")


def write_documents(folder, split, texts, suffix=".jsonl"):
    (folder / f"{split}{suffix}").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_sequences_hold_all_tokens_in_order_between_separators(tmp_path, tokenizer):
    texts = ["the film is dull", "every scene", "the script is a joy to watch", "a joy"]
    write_documents(tmp_path, "train", texts)
    write_documents(tmp_path, "validation", texts)
    task = make(tmp_path, max_length=8)
    rows = task.encode(task.load()["train"], tokenizer)
    stream = [
        t for text in texts for t in [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    ]
    packed = [row[1:-1] for row in rows["input_ids"]]
    assert [t for row in packed for t in row] == stream[: len(packed) * 6]
    assert len(stream) - len(packed) * 6 < 6
    assert {(row[0], row[-1], len(row)) for row in rows["input_ids"]} == {
        (tokenizer.cls_token_id, tokenizer.sep_token_id, 8)
    }


def test_sequences_are_made_once_for_the_same_documents(tmp_path, tokenizer, monkeypatch):
    write_documents(tmp_path, "train", ["the film is dull"] * 9)
    write_documents(tmp_path, "validation", ["every scene"] * 9)
    task = make(tmp_path, max_length=8)
    first = task.encode(task.load()["train"], tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_sequences", lambda **arguments: pytest.fail("made a second time"))
        assert task.encode(task.load()["train"], tokenizer).to_list() == first.to_list()
    write_documents(tmp_path, "train", ["the film is a joy"] * 9)
    assert task.encode(task.load()["train"], tokenizer).to_list() != first.to_list()
    assert first.cache_files  # mapped from the disk, not held in memory


def test_a_corpus_without_validation_is_split(tmp_path):
    write_documents(tmp_path, "train", [f"document {i}" for i in range(401)])
    splits = make(tmp_path).load()
    assert splits["validation"]["text"] == ["document 0", "document 200", "document 400"]
    assert len(splits["train"]) == 398
    assert not set(splits["train"]["text"]) & set(splits["validation"]["text"])


def test_two_corpora_are_read_one_after_the_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for split in ("train", "validation"):
            write_documents(tmp_path / name, split, [f"{split} of {name}"])
    splits = make(tmp_path / "a", more_sources=[str(tmp_path / "b")]).load()
    assert splits["train"]["text"] == ["train of a", "train of b"]
    assert len(set(splits["train"]["id"])) == 2


def test_validation_text_holds_the_reviews_that_the_task_holds_out(tmp_path):
    lines = "".join(f"{i},statement {i},reply {i}\n" for i in range(400))
    (tmp_path / DIALOGUES).write_text(",statement,reply\n" + lines)
    reviews = "".join(f"{i}\t{(-1.5, 1.5)[i % 2]}\treview {i}\r\n" for i in range(60))
    (tmp_path / FILE).write_text("id\tsentiment\ttext\r\n" + reviews)
    splits = make(tmp_path).load()
    held_out = set(load_task("movie_reviews", {"source": str(tmp_path)}, "test").load()["validation"]["sentence"])
    assert {t for t in splits["validation"]["text"] if t.startswith("review")} == held_out
    assert 5 < len(splits["validation"]) - len(held_out) < 40
    assert len(splits["train"]) + len(splits["validation"]) == 460


@pytest.fixture(scope="module")
def batch():
    tokens = torch.randint(10, 200, (512, 42), generator=torch.Generator().manual_seed(1))
    tokens[:, 0], tokens[:, -1], tokens[:, 20] = 2, 3, 3  # [CLS], [SEP], and the end of a document
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def test_chosen_tokens_are_replaced_in_the_ratio_eighty_ten_ten(batch, tokenizer):
    task = make(DATA / "mlm")
    made = task.prepare_batch(batch, tokenizer, torch.Generator().manual_seed(0))
    assert made["positions"].shape == (512, 6)  # 15 % of 40
    assert not set(made["positions"].unique().tolist()) & {0, 20, 41}
    assert all(len(set(row)) == 6 for row in made["positions"].tolist())
    original, given = (x["input_ids"].gather(1, made["positions"]) for x in (batch, made))
    assert torch.equal(made["labels"], original)
    masked, same = given == tokenizer.mask_token_id, given == original
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert same.float().mean().item() == pytest.approx(0.1, abs=0.03)
    others = torch.ones_like(batch["input_ids"], dtype=torch.bool).scatter(1, made["positions"], False)
    assert torch.equal(made["input_ids"][others], batch["input_ids"][others])


def test_masks_depend_on_the_generator_alone(batch, tokenizer):
    task = make(DATA / "mlm")
    first, second, other = (
        task.prepare_batch(batch, tokenizer, torch.Generator().manual_seed(seed))["positions"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_forward_gives_what_the_whole_model_gives_at_the_chosen_tokens(batch, tokenizer):
    task = make(DATA / "mlm")
    torch.manual_seed(0)
    network = BertForMaskedLM(
        BertConfig(vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).eval()
    made = task.prepare_batch(batch, tokenizer, torch.Generator().manual_seed(0))
    made = {name: values[:3] for name, values in made.items()}
    everything = network(input_ids=made["input_ids"], attention_mask=made["attention_mask"]).logits
    (logits,) = task.head.forward(network, made)
    torch.testing.assert_close(logits, everything[torch.arange(3)[:, None], made["positions"]])
    whole = network(input_ids=made["input_ids"], attention_mask=made["attention_mask"]).logits
    assert torch.equal(whole, everything)  # nothing of the choice stays behind
