"""CPU inference engines, one file each, all running the same exported model under the same protocol."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np


class Base(ABC):
    """An engine with one model loaded."""

    label: ClassVar[str]

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """None if the engine runs here, else one line that says why not, e.g. which library is missing."""
        return None

    @abstractmethod
    def __init__(self, folder: Path, threads: int):
        """Load the model that the export stage wrote to `folder`, to run with that many CPU threads."""

    @abstractmethod
    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Logits for one batch of int64 arrays [batch, tokens]: `input_ids`, `attention_mask`, `token_type_ids`."""

    @abstractmethod
    def threads(self) -> int:
        """The number of threads the engine itself says it uses."""
