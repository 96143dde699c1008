"""An exported run as a whole: texts in, labels, numbers or answers out.

This needs the packages `tokenizers` and `pydantic` besides NumPy and Numba, and for multiple choice `transformers`, as
there the task puts sequences together. Options, and the rules by which scores become predictions, are those of
`obert.tasks`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.sparse.model import SparseModel
from obert.sparse.predictions import Outputs, Tokens, predictor

ONNX, RECORD, CONFIG, TOKENIZER = "model.onnx", "metrics.json", "config.json", "tokenizer.json"


class Pipeline:
    """An exported model with its tokenizer and its task.

    Calls may be made from several threads at once.

    Attributes:
        model: what runs it, from arrays to arrays.
        task: the task that it was trained on, with its options.
        labels: names of the classes or tags; empty where there are none.
    """

    def __init__(self, folder: Path | str, threads: int | None = None):
        """Load a run of the stage `export`.

        Args:
            folder: of the run, as `results/runs/<experiment>/export/...`; or a folder that holds copies of its
                `model.onnx` and `metrics.json`, and of the trained model's `config.json` and `tokenizer.json` (and
                `tokenizer_config.json`, for multiple choice).
            threads: as in `SparseModel.load`.

        Raises:
            UserError: a file is missing or damaged, the task is not known, or its head has no predictions here.
        """
        folder = Path(folder)
        record = _read(folder / RECORD, "the record of an exported run", _hint(folder))
        trained = _trained(folder, record)
        config = _read(trained / CONFIG, "the trained model's configuration", "Run the stage that trains it again")
        self.task = _task(record, folder / RECORD)
        classes = config.get("id2label") or {}
        self.labels = tuple(classes[number] for number in sorted(classes, key=int))
        self.model = SparseModel.load(_present(folder / ONNX, "an exported model", _hint(folder)), threads)
        self._pad = config.get("pad_token_id") or 0
        tokenizer = _present(trained / TOKENIZER, "a tokenizer", "Run the stage that trains the model again")
        self._predictor = predictor(self.task, self.labels, tokenizer, self.model.inputs)

    def predict(self, inputs: Sequence[Any], batch_size: int = 32) -> list[dict[str, Any]]:
        """One prediction for each input, in their order.

        What an input is, and what a prediction holds, depends on the task:

        - Classification: a text, or a pair of texts where the task has pairs. `label`, its `probability`, and
          `probabilities` by label.
        - Regression: the same inputs. `value`.
        - Question answering: a pair of question and context. `answer`; `start` and `stop`, its characters in the
          context; `score`, the product of the probabilities of its first and its last token in their window. An answer
          is empty, without `start` and `stop`, where the task allows for none and that is what the model says.
        - Tagging: a text, whose words are what stands between spaces. `words` with their `labels` and `probabilities`.
        - Multiple choice: a mapping of `question`, `choices`, and `context` where the task has one. `choice`, its
          number from 0, and the `probabilities` of all.

        Texts are cut at the task's `max_length`; a long context is read in several windows.

        Args:
            batch_size: how many sequences are computed together. It changes no prediction.

        Raises:
            UserError: an input is not what the task has.
        """
        if isinstance(inputs, str):
            raise UserError("inputs are a list: write [text] for a single one")
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: at least 1 is needed")
        return self._predictor.predictions(inputs, lambda sequences: self._run(sequences, batch_size))

    def _run(self, sequences: Sequence[Tokens], size: int) -> Outputs:
        """The outputs of the model for each sequence; scores of tokens without those of the padding."""
        found: list[tuple[np.ndarray, ...]] = []
        for start in range(0, len(sequences), size):
            chosen = sequences[start : start + size]
            shape = len(chosen), max(len(tokens.ids) for tokens in chosen)
            ids, mask, types = np.full(shape, self._pad), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            for row, tokens in enumerate(chosen):
                length = len(tokens.ids)
                ids[row, :length], mask[row, :length], types[row, :length] = tokens.ids, 1, tokens.types
            arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            outputs = self.model(**{name: arrays[name] for name in self.model.inputs})
            if self.task.head.of_tokens:
                found += [
                    tuple(output[row, : len(tokens.ids)] for output in outputs) for row, tokens in enumerate(chosen)
                ]
            else:
                found += zip(*outputs, strict=True)
        return found


def _task(record: dict[str, Any], path: Path) -> Any:
    """The task of a record, with what the trained model has decided of it."""
    from pydantic import ValidationError

    try:
        options, name = record["spec"]["task"], record["key"]["task"]
        decided = record["details"].get("decided", {})
    except (KeyError, TypeError):
        raise UserError(f"{path} is no record of a run: it lacks the task. Export the model again") from None
    kind = registry.load("tasks", options.get("kind") or name, str(path))
    try:
        return kind.model_validate(options).model_copy(update=decided)
    except ValidationError as error:
        raise UserError(f"{path} has options that task '{name}' does not: {error}") from None


def _trained(folder: Path, record: dict[str, Any]) -> Path:
    """Where the tokenizer and the configuration are: beside the record, or in the run that the export was made from."""
    if (folder / TOKENIZER).is_file():
        return folder
    for source in record.get("inputs", {}):
        path = folder.resolve().parents[len(Path(source).parts) - 1] / source / "model"
        if (path / TOKENIZER).is_file():
            return path
    raise UserError(
        f"{folder} has no {TOKENIZER}, and the run that it was made from is not there: "
        f"{', '.join(record.get('inputs', {})) or 'unknown'}. Put the trained model's {CONFIG} and {TOKENIZER} into it"
    )


def _hint(folder: Path) -> str:
    return "Name the folder of a run of the stage `export`, as results/runs/<experiment>/export/..."


def _present(path: Path, what: str, mend: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path}, {what}, is missing. {mend}")
    return path


def _read(path: Path, what: str, mend: str) -> dict[str, Any]:
    try:
        content = json.loads(_present(path, what, mend).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}, {what}, is damaged: {error}. {mend}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}, {what}, is damaged: it holds no mapping. {mend}")
    return content
