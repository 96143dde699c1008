"""What the parts share: their options, device, model and memory."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from _timing import environment
from transformers import BertConfig


@dataclass(frozen=True)
class Options:
    """What a part is called with.

    Attributes:
        argument: which of the part's cases.
        rehearse: tiny models on the CPU.
        folder: where it may leave files.
    """

    argument: str
    rehearse: bool
    folder: Path

    @property
    def device(self) -> torch.device:
        """The GPU, or in a rehearsal the CPU."""
        return torch.device("cpu" if self.rehearse else "cuda")

    def config(self, **changes: int) -> BertConfig:
        """BERT-base, or in a rehearsal a model of two small layers."""
        tiny = {"vocab_size": 200, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
        small = {**tiny, "num_attention_heads": 2} if self.rehearse else {}
        return BertConfig(**small | changes)


def run_part(measure: Callable[[Options], dict], description: str | None, cases: tuple[str, ...] = ()) -> None:
    """The main program of a part: its figures as one line of JSON, all else it prints among the errors."""
    parser = argparse.ArgumentParser(description=description)
    if cases:
        parser.add_argument("case", choices=cases)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    options = Options(getattr(arguments, "case", ""), arguments.rehearse, arguments.folder)
    with contextlib.redirect_stdout(sys.stderr):
        found = measure(options) | environment(options.device)
    print(json.dumps(found))


def reset_peak(device: torch.device) -> None:
    """Forget the peak so far."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float | None:
    """Peak memory of tensors on a GPU since `reset_peak`, in GB (10^9 bytes); None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def synchronize(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
