"""What tests of models share: a head of each exported kind, padded batches of token lists, sentences with names."""

import json
import random

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from obert.heads.masked_language_model import MaskedLanguageModel
from obert.heads.question_answering import QuestionAnswering
from obert.heads.regression import Regression
from obert.heads.sequence_classification import SequenceClassification
from obert.heads.token_classification import TokenClassification
from obert.models.loading import load_weights

EXPORTED = {
    "sequence_classification": SequenceClassification(),
    "question_answering": QuestionAnswering(),
    "regression": Regression(),
    "token_classification": TokenClassification(),
}
WHOLE_AND_TOKENS = {name: EXPORTED[name] for name in ("sequence_classification", "question_answering")}
HEADS = {**EXPORTED, "masked_language_model": MaskedLanguageModel()}
BATCH = 8


def with_new_head(folder, head, **options):
    """A model in evaluation mode on whose encoder a head is put, of random weights."""
    kind = getattr(transformers, head.auto_model)
    return load_weights(kind, folder, str(folder), new_head=True, **options).eval()


def padded_batches(features, pad_token_id):
    """Lists of tokens by input as int64 tensors [8, tokens], padded to the longest of each batch."""
    for start in range(0, len(features["input_ids"]), BATCH):
        yield {
            name: pad_sequence(
                [torch.tensor(row) for row in rows[start : start + BATCH]],
                batch_first=True,
                padding_value=pad_token_id if name == "input_ids" else 0,
            )
            for name, rows in features.items()
        }


def tagged(count, seed):
    """Sentences as words with the tags of the people and places that they name."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        rows.append({"id": f"{seed}-{number}", "tokens": [], "ner_tags": []})
        for _ in range(rng.randint(3, 12)):
            kind = rng.choice(("O", "O", "PER", "LOC"))
            for place in range(1 if kind == "O" else rng.randint(1, 3)):
                rows[-1]["tokens"].append(f"{rng.choice(('film', 'wonder', 'dull'))}{rng.randint(0, 99)}")
                rows[-1]["ner_tags"].append(kind if kind == "O" else f"{'I' if place else 'B'}-{kind}")
    return rows


def write_tagged(folder):
    """A folder with splits of `tagged`, as the task `tagging` reads them."""
    for seed, (split, count) in enumerate({"train": 64, "validation": 32}.items()):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, tagged(count, seed))))
    return folder
