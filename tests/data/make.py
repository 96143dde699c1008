"""Writes the small data of the tests: a tiny random BERT and three small invented data sets.

    python tests/data/make.py

Every sentence, name and number is made up here, from one seed; running it again changes no file.
"""

import json
import random
from collections import Counter
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertModel, BertTokenizer

FOLDER = Path(__file__).parent
SEED = 20260
VOCABULARY_SIZE = 1000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

SUBJECTS = (
    "the film", "this comedy", "the second half", "her debut", "the whole cast", "this sequel", "the script",
    "every scene", "the soundtrack", "the old director", "this quiet drama", "the final chase", "the leading pair",
    "the camera work", "this little western", "the long opening",
)  # fmt: skip
OPINIONS = {
    1: (
        "warm and funny", "a joy to watch", "bright and well paced", "deeply moving", "clever from start to end",
        "charming in every way", "a wonderful surprise", "rich and honest", "fresh and lively", "simply delightful",
    ),
    0: (
        "dull and slow", "a waste of time", "loud and badly cut", "painfully flat", "stale from start to end",
        "clumsy in every way", "an awful mess", "empty and false", "tired and lifeless", "simply boring",
    ),
}  # fmt: skip
FRAMES = (
    "{subject} is {opinion} .", "i found that {subject} was {opinion} .", "{opinion} , that is how {subject} felt .",
    "on a rainy evening {subject} turned out {opinion} .",
)  # fmt: skip

STARTS = ("Bram", "Old", "Kel", "Thorn", "Fen", "Wil", "Ash", "Mor", "Dun", "Elder", "Grim", "Hol")
ENDS = ("ford", "mere", "wick", "stead", "haven", "bury", "cliff", "dale")
STATES = ("Norland", "Westmark", "Sundale", "Highreach", "Lowfen", "Eastholm")
ZONES = ("Early Time", "Harbour Time", "Late Time")
FACTS = {
    "state": (
        ("{place} lies in {value}.", "{place} is a town in {value}."),
        ("In which state is {place}?", "What state does {place} belong to?"),
    ),
    "population": (
        ("{place} has {value} inhabitants.", "There are {value} people in {place}."),
        ("How many people live in {place}?", "What is the population of {place}?"),
    ),
    "elevation": (
        ("{place} stands {value} metres above the sea.", "The elevation of {place} is {value} metres."),
        ("How many metres above the sea is {place}?", "What is the elevation of {place}?"),
    ),
    "zone": (
        ("Clocks in {place} follow {value}.", "{place} keeps {value}."),
        ("Which time do clocks in {place} follow?", "What time does {place} keep?"),
    ),
}


def movie_reviews(rng: random.Random) -> dict[str, list[dict]]:
    """Balanced sentences with label 1 (praise) or 0; none is in both splits."""
    by_label = []
    for label, opinions in OPINIONS.items():
        sentences = [f.format(subject=s, opinion=o) for f in FRAMES for s in SUBJECTS for o in opinions]
        by_label.append([{"sentence": sentence, "label": label} for sentence in rng.sample(sentences, 72)])
    rows = [row for pair in zip(*by_label, strict=True) for row in pair]
    return {
        split: [{"id": f"{split}-{i}", **row} for i, row in enumerate(part)]
        for split, part in (("train", rows[:96]), ("validation", rows[96:]))
    }


def _context(rng: random.Random, places: list[dict]) -> tuple[str, dict[tuple[str, str], tuple[str, int]]]:
    """A paragraph of two or three facts on each place, and (text, start) of every (place, fact) in it."""
    text, spans = "", {}
    for place in places:
        for fact in rng.sample(sorted(FACTS), rng.choice((2, 3))):
            before, after = rng.choice(FACTS[fact][0]).format(place=place["name"], value="\0").split("\0")
            text += (" " if text else "") + before
            spans[place["name"], fact] = (place[fact], len(text))
            text += place[fact] + after
    return text, spans


def city_qa(rng: random.Random) -> dict[str, list[dict]]:
    """Questions on short paragraphs about two places, in SQuAD's format; no place is in both splits."""
    names = rng.sample([a + b for a in STARTS for b in ENDS], 72)
    places = [
        {
            "name": name,
            "state": rng.choice(STATES),
            "population": f"{rng.randint(1_000, 99_999):,}",
            "elevation": str(rng.randint(2, 990)),
            "zone": rng.choice(ZONES),
        }
        for name in names
    ]
    splits = {}
    for split, count, part in (("train", 64, places[:48]), ("validation", 32, places[48:])):
        rows = []
        while len(rows) < count:
            text, spans = _context(rng, rng.sample(part, 2))
            for name, fact in rng.sample(sorted(spans), 2):
                answer, start = spans[name, fact]
                question = rng.choice(FACTS[fact][1]).format(place=name)
                answers = {"text": [answer], "answer_start": [start]}
                row = {"id": f"{split}-{len(rows)}", "title": name, "context": text, "question": question}
                rows.append({**row, "answers": answers})
        splits[split] = rows
    return splits


def mlm(rng: random.Random) -> dict[str, list[dict]]:
    """Documents of one to three sentences, each sentence in one of them."""
    opinions = [opinion for of_label in OPINIONS.values() for opinion in of_label]
    sentences = [f.format(subject=s, opinion=o) for f in FRAMES for s in SUBJECTS for o in opinions]
    rng.shuffle(sentences)
    splits = {}
    for split, count in (("train", 240), ("validation", 60)):
        splits[split] = [
            {"text": " ".join(sentences.pop() for _ in range(rng.choice((1, 2, 3))))} for _ in range(count)
        ]
    return splits


def vocabulary(texts: list[str]) -> dict[str, int]:
    """Word pieces: special tokens, every character in both positions, then the most frequent words."""
    words = Counter(word for text in texts for word, _ in BertPreTokenizer().pre_tokenize_str(text.lower()))
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = [*SPECIAL, *characters, *(f"##{c}" for c in characters if c.isalnum())]
    frequent = sorted((w for w in words if len(w) > 1), key=lambda word: (-words[word], word))
    pieces += [word for word in frequent if not word.isdecimal()][: VOCABULARY_SIZE - len(pieces)]
    return {piece: index for index, piece in enumerate(pieces)}


def tiny_bert(folder: Path, texts: list[str]) -> None:
    """A BertModel with random weights and a tokenizer that knows the words of `texts`."""
    vocab = vocabulary(texts)
    tokenizer = BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=128)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(SEED)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    rng = random.Random(SEED)
    texts = []
    for name, splits in (("movie_reviews", movie_reviews(rng)), ("city_qa", city_qa(rng)), ("mlm", mlm(rng))):
        for split, rows in splits.items():
            path = FOLDER / name / f"{split}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            texts += [row[column] for row in rows for column in ("sentence", "context", "question") if column in row]
    tiny_bert(FOLDER / "tiny_bert", texts)


if __name__ == "__main__":
    main()
