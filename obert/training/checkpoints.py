"""Training checkpoints that are either complete, undamaged and of this very run, or not used."""

import json
import logging
import time
from pathlib import Path

from safetensors.torch import load_model
from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR  # undocumented; tests/training holds the folders' names

from obert.foundation import processes
from obert.foundation.files import file_hash, write_text

MARKER, WEIGHTS = "complete.json", "model.safetensors"
logger = logging.getLogger(__name__)


def checkpoint_of(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder that the Trainer has written at this step."""
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


class TimedCheckpoints(TrainerCallback):
    """Asks for a checkpoint when the last one is some minutes old, and when training is over.

    Several processes must agree on it, for which they wait for each other. They do so at steps that are logged, when
    they wait anyway.

    The last is what a run goes on from if its evaluation, or what comes after it, fails. No step follows it, so it
    holds the model without the optimiser's state, which is twice as large.
    """

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes
        self.last = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        """Called after every optimiser step."""
        if state.global_step >= state.max_steps:
            args.save_only_model = control.should_save = True
        elif not processes.are_several() or control.should_log:
            control.should_save |= processes.agree(time.monotonic() - self.last >= self.seconds, args.device)

    def on_save(self, args, state, control, **kwargs):
        """Called after the Trainer has written a checkpoint."""
        self.last = time.monotonic()


class CheckpointMarker(TrainerCallback):
    """Writes, last of all, the marker that makes a checkpoint complete: the run's identity and each file's sha256.

    Must be the last callback, after those that add files of their own.

    Args:
        identity: hash of the run's specification and code.
    """

    def __init__(self, identity: str):
        self.identity = identity

    def on_save(self, args, state, control, **kwargs):
        """Called by the Trainer after it has written a checkpoint."""
        processes.wait()  # each has its own random state in the folder
        if processes.rank() > 0:
            return
        mark(checkpoint_of(args, state), self.identity)


def mark(folder: Path, identity: str) -> None:
    """Make a checkpoint complete: nothing is written into it after this."""
    hashes = {p.name: file_hash(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name != MARKER}
    write_text(folder / MARKER, json.dumps({"identity": identity, "files": hashes}))


def load_weights(network: nn.Module, checkpoint: Path) -> None:
    """Load a checkpoint's model into a network, whose parts must be the very same."""
    load_model(network, checkpoint / WEIGHTS, device=str(next(network.parameters()).device))


def latest_checkpoint(folder: Path, identity: str) -> Path | None:
    """The newest checkpoint to resume from, or None. What cannot be used is named in a warning and passed over."""
    found = {path.name.rpartition("-")[2]: path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    for step in sorted((step for step in found if step.isdecimal()), key=int, reverse=True):
        checkpoint = found[step]
        problem = _problem(checkpoint, identity)
        if problem is None:
            return checkpoint
        logger.warning("checkpoint %s is not used: %s", checkpoint, problem)
    return None


def _problem(checkpoint: Path, identity: str) -> str | None:
    try:
        marker = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        made_by, files = marker["identity"], marker["files"].items()
    except FileNotFoundError:
        return "it was not finished"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its marker is damaged"
    if made_by != identity:
        return "it belongs to another configuration or version of the code"
    for name, expected in files:
        if not (checkpoint / name).is_file() or file_hash(checkpoint / name) != expected:
            return f"its file {name} is damaged"
    return None
