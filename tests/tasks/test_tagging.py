"""Tags of words against tokens: every word is judged once, by its first piece, whatever the tokenizer."""

import json

import pytest
from architectures import models
from samples import write_tagged

from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError
from obert.heads.token_classification import IGNORED
from obert.models.encoders import load_tokenizer

WORDS = ("Ann", "O'Neil-Smith", "flew", "to", "New York", ",", "\N{ZERO WIDTH SPACE}", "Zürich")
BEFORE_WORDS = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}\N{LOWER ONE EIGHTH BLOCK}"  # how tokenizers write a space
TAGS = ("B-PER", "I-PER", "O", "O", "B-LOC", "O", "O", "B-LOC")


def load(folder, **options):
    return load_task("names", {"kind": "tagging", "source": str(folder), "max_length": 16, **options}, "the test")


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "modernbert"])
def test_each_word_has_one_label_at_its_first_piece(name, tmp_path):
    tokenizer = load_tokenizer(models.make(name, tmp_path / "model"))
    rows = {
        "train": [
            {"words": ["Ann", "in", "Rome"], "tags": ["B-PER", "I-PER", "B-LOC"]},
            {"words": ["so"], "tags": ["O"]},
        ],
        "validation": [{"words": WORDS * n, "tags": TAGS * n} for n in (1, 4)],
    }
    for split, of_split in rows.items():
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, of_split)))
    task = load(tmp_path, text="words", label="tags")
    examples = task.load()["validation"]
    names = task.classes(examples)
    features = task.encode(examples, tokenizer)
    assert max(features["length"]) <= 16 and len(features) > len(examples)
    seen = {i: [] for i in examples["id"]}
    for row in features:
        labelled = [place for place, label in enumerate(row["labels"]) if label != IGNORED]
        assert len(labelled) == len(row["words"])
        for place, word in zip(labelled, row["words"], strict=True):
            seen[row["id"]].append(word)
            assert names[row["labels"][place]] == (TAGS * 4)[word]
            piece = tokenizer.convert_ids_to_tokens(row["input_ids"][place]).lstrip(BEFORE_WORDS).lower()
            is_known = piece.isascii() and "[" not in piece and "<" not in piece
            assert not is_known or (WORDS * 4)[word].lower().replace("ü", "u").startswith(piece)
    for example in examples:
        missing = set(range(len(example["words"]))) - set(seen[example["id"]])
        assert seen[example["id"]] == sorted(set(seen[example["id"]]))
        assert {example["words"][word] for word in missing} <= {"\N{ZERO WIDTH SPACE}"}


def test_tags_that_name_no_entities_are_refused(tmp_path):
    write_tagged(tmp_path)
    for split in ("train", "validation"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text(path.read_text().replace("B-PER", "PERSON"))
    with pytest.raises(UserError, match=r"column 'ner_tags': 'PERSON' is no tag of an entity\. Allowed: O, and B-"):
        load(tmp_path).load()


def test_columns_have_names_of_their_own(tmp_path):
    with pytest.raises(UserError, match="named twice"):
        load(tmp_path, text="tags", label="tags")
