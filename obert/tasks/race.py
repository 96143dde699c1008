"""RACE: English examinations, questions with four options about a passage (Lai et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from obert.data.columns import Identifier, Text, Texts
from obert.data.splits import load_splits, without_shared
from obert.tasks._multiple_choice import Answer, Encoded, MultipleChoice, Option, joined, pairs, tokens_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

LONGEST = 126  # tokens of a question with its option in fairseq's recipe, which counts 128 with the special ones


class Race(MultipleChoice):
    """Accuracy on the validation split of both schools' examinations.

    Format `smc` is fairseq's and SMC-Bench's (`<s> question with option </s></s> passage </s>`), `hf` the tokenizer's
    own pair of passage and question with option. The option stands in the place of the question's underscore, or
    behind the question. A passage is cut at its end where there is no room.
    """

    source: str = Field("ehovy/race", description="a Hugging Face Hub name, or a local directory")
    max_length: int = Field(512, gt=8, description="tokens of a choice's sequence, special tokens included")
    format: Literal["smc", "hf"] = Field("smc", description="how passage, question and option become one sequence")

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training passages that are in validation too."""
        columns = {
            "id": Identifier(),
            "article": Text(),
            "question": Text(),
            "options": Texts(at_least=2),
            "answer": Answer("options"),
        }
        splits = load_splits(self.source, columns, "all", together=("article",))
        names = {"article": "context", "options": "choices", "answer": "label"}
        return without_shared({name: split.rename_columns(names) for name, split in splits.items()}, self.units)

    def units(self, examples: Dataset) -> Iterable[str]:
        """The passage, of which there are several questions."""
        return (_spaced(passage).lower() for passage in examples["context"])

    def sequences(self, options: Sequence[Option], tokenizer: PreTrainedTokenizerBase) -> Encoded:
        """The question with the option, and the passage."""
        questions = [_filled(option) for option in options]
        passages = [_spaced(option.context) for option in options]
        if self.format == "hf":
            return pairs(passages, questions, tokenizer, self.max_length, cut="first")
        room = self.max_length - 4
        first = [tokens[: min(LONGEST, room // 2)] for tokens in tokens_of(questions, tokenizer)]
        second = [
            tokens[: room - len(question)]
            for tokens, question in zip(tokens_of(passages, tokenizer), first, strict=True)
        ]
        return joined(first, second, tokenizer, separators=2)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _filled(option: Option) -> str:
    if "_" in option.question:
        return _spaced(option.question.replace("_", option.choice))
    return _spaced(f"{option.question} {option.choice}")
