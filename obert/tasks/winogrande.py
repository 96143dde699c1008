"""WinoGrande: which of two names fills the blank of a sentence (Sakaguchi et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from obert.data.columns import Identifier, Text
from obert.data.sources import resolve
from obert.data.splits import load_splits, without_shared
from obert.data.values import Unfit
from obert.foundation.errors import UserError
from obert.heads.masked_choice import MaskedChoice
from obert.heads.multiple_choice import MultipleChoice as ChoiceHead
from obert.tasks._multiple_choice import Answer, Encoded, MultipleChoice, Option, inputs_of, pairs

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

BLANK = "_"
HEADS = {"head": ChoiceHead(), "masked_lm": MaskedChoice()}


@dataclass(frozen=True)
class _Sentence(Text):
    @property
    def allowed(self) -> str:
        return f"text with a blank, '{BLANK}', in it"

    def convert(self, value: Any, row: Mapping[str, Any]) -> str:
        text = super().convert(value, row)
        if BLANK not in text:
            raise Unfit("has no blank")
        return text


@dataclass(frozen=True)
class _Number(Answer):
    """1 or 2, as 0 or 1."""

    of: str = "option1"

    @property
    def allowed(self) -> str:
        return '"1" or "2"'

    def convert(self, value: Any, row: Mapping[str, Any]) -> int:
        if str(value) in ("1", "2"):
            return int(value) - 1
        if value:
            raise Unfit("is neither")
        return super().convert(value, row)


class Filled(NamedTuple):
    """A sentence with an option in its blank, and the characters of the option with the space before it."""

    text: str
    start: int
    stop: int


class WinoGrande(MultipleChoice):
    """Accuracy on the validation split, since the answers of the test split are hidden.

    With `scoring: masked_lm` each option's tokens are masked, and its score is the mean log-probability that the
    pre-trained head gives them; equal scores count as right. Format `smc` is fairseq's and SMC-Bench's: the sentence
    and `</s>`, nothing before it. Format `hf` has all special tokens of the tokenizer. With `scoring: head` a new head
    scores the pair of the sentence up to the blank and the rest with the option; format `hf` only.
    """

    source: str = Field("allenai/winogrande", description="a Hugging Face Hub name, or a local directory")
    train_split: Literal["train", "train_xs", "train_s", "train_m", "train_l", "train_xl"] = Field(
        "train", description="the training examples, by their size; on the Hub `train` is `train_xl`"
    )
    max_length: int = Field(64, gt=8, description="tokens of a choice's sequence; a longer sentence is refused")
    format: Literal["smc", "hf"] = Field("smc", description="how a sentence with an option becomes one sequence")
    scoring: Literal["head", "masked_lm"] = Field("masked_lm", description="what scores an option")

    @model_validator(mode="after")
    def _has_a_first_token(self):
        if self.scoring == "head" and self.format == "smc":
            raise ValueError("scoring head reads the first token, which format smc leaves out: use format hf")
        return self

    @property
    def head(self) -> ChoiceHead:
        """What `scoring` says."""
        return HEADS[self.scoring]

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training sentences that are in validation too."""
        columns = {
            "id": Identifier(),
            "sentence": _Sentence(),
            "option1": Text(),
            "option2": Text(),
            "answer": _Number(),
        }
        is_local = isinstance(resolve(self.source), Path)
        size = self.train_split.partition("_")[2] or "xl"
        splits = load_splits(
            self.source,
            columns,
            f"winogrande_{size}",
            together=("sentence",),
            train=self.train_split if is_local else "train",
        )

        def renamed(split: Dataset) -> Dataset:
            names = {"sentence": "question", "answer": "label"}
            options = [list(pair) for pair in zip(split["option1"], split["option2"], strict=True)]
            return split.rename_columns(names).remove_columns(["option1", "option2"]).add_column("choices", options)

        return without_shared({name: renamed(split) for name, split in splits.items()}, self.units)

    def sequences(self, options: Sequence[Option], tokenizer: PreTrainedTokenizerBase) -> Encoded:
        """Inputs of the model; for `masked_lm` with `positions` that are masked, and `targets`, their tokens."""
        if self.scoring == "head":
            split = [option.question.split(BLANK, 1) for option in options]
            rest = [option.choice + after for option, (_, after) in zip(options, split, strict=True)]
            return pairs([before.rstrip() for before, _ in split], rest, tokenizer, self.max_length, cut="first")
        if tokenizer.mask_token_id is None:
            raise UserError("scoring masked_lm needs a tokenizer with a mask token; use scoring head")
        filled = [_filled(option) for option in options]
        smc = self.format == "smc"
        texts = [sentence.text for sentence in filled]
        encoded = dict(tokenizer(texts, add_special_tokens=not smc, return_offsets_mapping=True, verbose=False))
        offsets = encoded.pop("offset_mapping")
        if smc:
            encoded = inputs_of([([*tokens, tokenizer.sep_token_id],) for tokens in encoded["input_ids"]], tokenizer)
        places = [
            [i for i, (start, stop) in enumerate(spans) if start < sentence.stop and stop > sentence.start]
            for sentence, spans in zip(filled, offsets, strict=True)
        ]
        for option, found in zip(options, places, strict=True):
            if not found:
                raise UserError(f"the tokenizer makes nothing of option '{option.choice}' of '{option.question}'")
        targets = [[tokens[i] for i in found] for tokens, found in zip(encoded["input_ids"], places, strict=True)]
        for tokens, found in zip(encoded["input_ids"], places, strict=True):
            for i in found:
                tokens[i] = tokenizer.mask_token_id
        return {**encoded, "positions": places, "targets": targets}

    def is_right(self, prediction: Mapping[str, Any], label: int) -> bool:
        """Of mean log-probabilities, as fairseq has it, equal ones are right."""
        if self.scoring == "masked_lm":
            return prediction["scores"][label] >= prediction["scores"][1 - label]
        return super().is_right(prediction, label)


def _filled(option: Option) -> Filled:
    before, after = option.question.split(BLANK, 1)
    space = " " if before.endswith(" ") else ""
    before, inserted = before.rstrip(), space + option.choice
    return Filled(before + inserted + after, len(before), len(before) + len(inserted))
