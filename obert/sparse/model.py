"""A model from an exported ONNX file, ready to run."""

from __future__ import annotations

import importlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from obert.foundation.errors import UserError
from obert.sparse.execution.instructions import schedule
from obert.sparse.execution.layout import Layout
from obert.sparse.execution.runs import Run
from obert.sparse.execution.threads import Team, available_cores
from obert.sparse.execution.tokens import Stream, stream
from obert.sparse.kernels.dots import BYTES
from obert.sparse.program import Program
from obert.sparse.reading import read

if TYPE_CHECKING:
    from obert.sparse.pipeline import Pipeline

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SparseModel:
    """An encoder with its head, whose zeros take no time.

    Calls may be made from several threads at once. The same inputs give the same outputs, bit for bit, whatever the
    number of threads, the other sequences of the batch, and their lengths.

    Attributes:
        inputs: names of the inputs that the file declares; of these, `input_ids` must be given.
        outputs: names of the outputs, in the order of the file.
        threads: how many threads a call uses.
        packed_bytes: what weights and tables take in memory, once for all threads.
    """

    def __init__(self, program: Program, threads: int | None = None):
        if threads is not None and threads < 1:
            raise UserError(f"{threads} threads: at least 1 is needed")
        self.threads = threads or available_cores()
        self.inputs = program.inputs
        self.outputs = tuple(output.name for output in program.outputs)
        self._outputs, self._longest, self._pad = program.outputs, program.positions, program.pad_token
        self._layout = Layout(schedule(program, 1 if BYTES else 2))
        self._team = Team(self.threads)
        self._idle: list[Run] = []
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path | str, threads: int | None = None) -> SparseModel:
        """The model of an exported file.

        Args:
            threads: how many to use; by default all cores that the process may run on.

        Raises:
            UserError: the file is not an ONNX file, or has an operator that is not understood.
        """
        return cls(read(Path(path)), threads)

    @classmethod
    def from_run(cls, folder: Path | str, threads: int | None = None) -> Pipeline:
        """The model of an exported run with its tokenizer and its task: see `obert.sparse.pipeline.Pipeline`."""
        # Not an import statement: the code hash follows those, and the engine by itself has nothing to do with tasks.
        return importlib.import_module("obert.sparse.pipeline").Pipeline(folder, threads)

    @property
    def packed_bytes(self) -> int:
        return self._layout.nbytes

    def __call__(self, **inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs for one batch.

        Args:
            inputs: integers [sequences, tokens]: `input_ids`; `attention_mask`, else all tokens count;
                `token_type_ids`, else zeros. What the model does not take is left aside.

        Returns:
            float32 arrays: [sequences, classes], or scores of tokens, [sequences, tokens, ...], zeros at the end of a
            sequence where the mask is 0.

        Raises:
            UserError: an input is missing, has another shape, or holds a number that the model has no entry for.
        """
        return self._run(inputs, False)[0]

    def seconds_by_part(self, **inputs: np.ndarray) -> dict[str, float]:
        """Seconds that one run spends on each part: `linear`, `attention`, `norm`, ..., and `total`."""
        return self._run(inputs, True)[1]

    def _run(self, inputs: dict[str, np.ndarray], measured: bool) -> tuple[list[np.ndarray], dict[str, float]]:
        arrays = self._checked(inputs)
        batch = stream(arrays["attention_mask"])
        indices = [self._index(batch, arrays, *index) for index in self._layout.indices]
        run = self._take()
        try:
            started = time.perf_counter()
            run.compute(self._team, batch, indices, measured)
            seconds = time.perf_counter() - started
            outputs = [run.output(output, batch) for output in self._outputs]
            return outputs, run.seconds_by_part(seconds) if measured else {}
        finally:
            with self._lock:
                self._idle.append(run)

    def _take(self) -> Run:
        with self._lock:
            return self._idle.pop() if self._idle else Run(self._layout)

    def _checked(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        unknown = sorted(set(inputs) - set(INPUTS))
        if unknown or "input_ids" not in inputs:
            given = ", ".join(sorted(inputs)) or "none"
            raise UserError(f"inputs: {given}; allowed are {', '.join(INPUTS)}, and input_ids is needed")
        arrays = {}
        for name, values in inputs.items():
            array = np.asarray(values)
            if array.ndim != 2 or array.dtype.kind not in "iub" or not array.size:
                raise UserError(f"{name} is {array.dtype} {list(array.shape)}: integers [sequences, tokens] are needed")
            if array.shape != np.shape(inputs["input_ids"]):
                raise UserError(f"{name} is {list(array.shape)}, input_ids {list(np.shape(inputs['input_ids']))}")
            arrays[name] = array.astype(np.int64, copy=False)
        ids = arrays["input_ids"]
        arrays.setdefault("attention_mask", np.ones_like(ids))
        arrays.setdefault("token_type_ids", np.zeros_like(ids))
        arrays["positions"] = self._positions(ids)
        arrays["first"] = np.zeros_like(ids)
        return arrays

    def _positions(self, ids: np.ndarray) -> np.ndarray:
        if self._pad is None:
            return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        real = ids != self._pad
        return np.cumsum(real, axis=1) * real + self._pad

    def _index(self, batch: Stream, arrays: dict[str, np.ndarray], index: str, shift: int, entries: int) -> np.ndarray:
        """Rows of a table for the places of the stream; -1 gives zeros."""
        name = {"words": "input_ids", "types": "token_type_ids"}.get(index, index)
        rows = batch.gather(arrays[name], shift)
        real = rows[batch.source >= 0] if not shift else rows[rows >= 0]
        wrong = real[(real < 0) | (real >= entries)]
        if wrong.size and index == "positions":
            raise UserError(f"{batch.length} tokens: the model has positions for {self._longest}")
        if wrong.size:
            raise UserError(f"{name} holds {wrong[0]}: allowed is 0 to {entries - 1}")
        return rows
