"""CommonsenseQA: questions with five choices, asked about things that everybody knows (Talmor et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from obert.data.columns import Identifier, Text, Texts
from obert.data.splits import load_splits, without_shared
from obert.data.values import Unfit, kind_of, parsed
from obert.tasks._multiple_choice import Answer, Encoded, MultipleChoice, Option, joined, pairs, tokens_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Choices(Texts):
    """The texts of `{"label": ["A", ...], "text": [...]}`."""

    at_least: int = 2

    @property
    def allowed(self) -> str:
        return '{"label": ["A", ...], "text": [...]}, lists of one length, at least two'

    def convert(self, value: Any, row: Mapping[str, Any]) -> list[str]:
        found = _labelled(value)
        if not isinstance(found["label"], list) or len(set(map(str, found["label"]))) != len(found["text"]):
            raise Unfit("has not a label of its own for each text")
        return super().convert(found["text"], row)


@dataclass(frozen=True)
class _Key(Answer):
    """The number of the choice that has this label."""

    @property
    def allowed(self) -> str:
        return f"a label of one of '{self.of}'"

    def convert(self, value: Any, row: Mapping[str, Any]) -> int:
        labels = _labelled(row[self.of])["label"]
        if value in labels:
            return labels.index(value)
        if value:
            raise Unfit("is the label of no choice")
        return super().convert(value, row)


def _labelled(value: Any) -> dict[str, list]:
    value = parsed(value, "{") if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise Unfit(kind_of(value))
    if not {"label", "text"} <= set(value) or not isinstance(value["text"], list):
        raise Unfit("has no lists 'label' and 'text'")
    return value


class CommonsenseQA(MultipleChoice):
    """Accuracy on the validation split, since the answers of the test split are hidden.

    Format `smc` is fairseq's and SMC-Bench's (`<s> Q: question </s> A: choice </s>`, one separator), `hf` the
    tokenizer's own pair of question and choice, without prefixes.
    """

    source: str = Field("tau/commonsense_qa", description="a Hugging Face Hub name, or a local directory")
    format: Literal["smc", "hf"] = Field("smc", description="how a question and a choice become one sequence")

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training questions that are in validation too."""
        columns = {"id": Identifier(), "question": Text(), "choices": _Choices(), "answerKey": _Key("choices")}
        splits = load_splits(self.source, columns, together=("question",))
        named = {name: split.rename_column("answerKey", "label") for name, split in splits.items()}
        return without_shared(named, self.units)

    def sequences(self, options: Sequence[Option], tokenizer: PreTrainedTokenizerBase) -> Encoded:
        """The question, cut at its end where there is no room, and the choice."""
        if self.format == "hf":
            questions, choices = ([getattr(o, name) for o in options] for name in ("question", "choice"))
            return pairs(questions, choices, tokenizer, self.max_length, cut="first")
        room = self.max_length - 3
        choices = [tokens[: room // 2] for tokens in tokens_of([f"A: {o.choice}" for o in options], tokenizer)]
        questions = tokens_of([f"Q: {o.question}" for o in options], tokenizer)
        kept = [tokens[: room - len(choice)] for tokens, choice in zip(questions, choices, strict=True)]
        return joined(kept, choices, tokenizer, separators=1)
