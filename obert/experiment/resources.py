"""What a run's job asks of a machine: CPUs, memory, time and a GPU.

Where a run like it, of another seed, has a record, that says what it took. Where there is none, memory and time are
estimated, rather too much than too little, from the model, the recipe, the method and the number of steps at a stated
rate. A run that was killed for want of them asks for more at its next attempt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from obert.experiment.sizes import DataSize, ModelSize, Sizes
from obert.records.durations import run_seconds
from obert.records.record import FILE_NAME, MODEL
from obert.training.schedules import pruning_events, steps_per_epoch, total_steps

if TYPE_CHECKING:
    from obert.experiment.keys import RunKey
    from obert.experiment.plan import PlannedRun
    from obert.experiment.schema import Experiment
    from obert.pruning import Method

MB = 1e6
PLANNING = 1300.0  # MB of Snakemake on the node, twice as it plans in the job and in its step, and of the tracker
PROCESS = 900.0  # MB of Python with torch, transformers and datasets
DRIVER = 3000.0  # MB of the machine's memory that a process with a GPU takes
MARGIN = 1.25  # of an estimate, and of what an earlier run took
CPU_RATE = 20e9  # floating-point operations a second of one thread: processors of ten years ago do as much
GPU_RATE = 5e12  # of a GPU in float32: a third of a V100's peak
# Of one thread, in batches of 8 and 16 through six layers of MiniLM, forward and backward, on an AMD EPYC (Zen 4) that
# has instructions for bfloat16, and whose other core did the same. Pruning events go at CPU_RATE there.
EXPECTED_CPU_RATE = {"float32": 50e9, "bfloat16": 100e9}
FIXED_MINUTES = 20.0  # imports, data, evaluation, writing, and a queue of jobs that read from one file system
EVENT, ACTIVATIONS = "pruning event", "activations"
RECORDED, TRAINED, LOADED, TEACHER = "as recorded", "weights, gradients and optimiser", "weights", "teacher"
EXACT = (EVENT, RECORDED, TRAINED, LOADED, TEACHER)  # parts that are counted, where others are estimated


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a run.

    Attributes:
        passes: of its steps and its evaluation.
        events: of its pruning events, with what they read and write.
    """

    passes: float
    events: float


@dataclass(frozen=True)
class Ask:
    """What one job asks for.

    Attributes:
        memory_mb: of the machine, in MB of 10^6 bytes.
        gpu_memory_mb: that the run takes on its GPU; 0 without one. SLURM gives whole GPUs, so it is not asked for.
        minutes: after which the job is ended. Training goes on from its checkpoint in the next.
        parts: of the memory before the margin, in MB, by what takes it.
        exclusive: whether it has a machine to itself.
    """

    cpus: int
    memory_mb: int
    minutes: int
    gpus: int = 0
    gpu_memory_mb: int = 0
    exclusive: bool = False
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def surely_mb(self) -> float:
        """Memory that the run takes whatever the margin of an estimate."""
        return sum(size for name, size in self.parts.items() if name in EXACT)

    def again(self, attempt: int) -> Ask:
        """What its job asks for at an attempt, counted from 1: half as much memory more each time, and time anew."""
        return replace(self, memory_mb=round(self.memory_mb * (attempt + 1) / 2), minutes=self.minutes * attempt)


def cpus_of(run: PlannedRun) -> int:
    """CPUs that a run's job takes on a cluster: the threads of the configuration."""
    experiment = run.experiment
    if run.stage.exclusive:
        return max(scenario.threads for scenario in experiment.benchmark.scenarios_of(run.key.task))
    return experiment.threads if run.stage.trains else 1


def ask(run: PlannedRun, sizes: Sizes, on_gpu: bool) -> Ask:
    """What a run's job asks for at its first attempt.

    Args:
        on_gpu: whether machines have GPUs; a run that trains takes one.
    """
    gpus = int(on_gpu and run.stage.trains)
    took = _recorded(run, on_gpu)
    if took is not None:
        memory, minutes = took
        parts, gpu_memory = {RECORDED: memory}, 0.0
        minutes = 2 * minutes + FIXED_MINUTES
    else:
        parts = memory_parts(run, sizes)
        gpu_memory = 0.0
        if gpus:
            gpu_memory = sum(parts.values()) - PROCESS
            weights = 8e-6 * sizes.model_of(run).parameters  # as they are loaded, and as they are written
            parts = {"process": PROCESS, "driver of the GPU": DRIVER, LOADED: weights}
        minutes = _minutes(run, sizes, on_gpu)
    memory = MARGIN * sum(parts.values()) + PLANNING
    return Ask(
        cpus_of(run),
        100 * math.ceil(memory / 100),
        math.ceil(minutes),
        gpus,
        math.ceil(MARGIN * gpu_memory),
        run.stage.exclusive,
        parts,
    )


def memory_parts(run: PlannedRun, sizes: Sizes) -> dict[str, float]:
    """MB of a run's process at its peak on a CPU, by what takes them."""
    model, recipe = _model(run, sizes), run.recipe
    parameters = model.parameters / MB
    if recipe is None:
        return {"process": float(run.stage.memory_mb), "models": 24 * parameters}
    parts = {"process": PROCESS}
    data = sizes.data_of(run)
    if data is not None:
        parts["data"] = 24 * data.train * data.sequences * data.tokens / MB  # three inputs of 8 bytes a token
    if recipe.training is not None:
        parts[TRAINED] = 16 * parameters
    else:
        parts[LOADED] = 8 * parameters  # and a copy, as a checkpoint is written
    if recipe.distillation is not None:
        parts[TEACHER] = 4 * parameters
    parts[ACTIVATIONS] = _activations(run, model, data)
    if _is_pruned(run):
        prunable = _prunable(run, model)
        parts["masks and scores"] = 13 * sum(prunable.values()) / MB
        parts[EVENT] = event_bytes(run.method, prunable) / MB
    return parts


def _model(run: PlannedRun, sizes: Sizes) -> ModelSize:
    """The size of a run's model, without the layers that the run or one before it drops."""
    model, origin = sizes.model_of(run), run
    while MODEL in origin.sources and not (origin.recipe and origin.recipe.layers):
        origin = origin.sources[MODEL]
    kept = origin.recipe.layers if origin.recipe else None
    return model if kept is None else model.with_layers(len(kept))


def _is_pruned(run: PlannedRun) -> bool:
    return run.stage.prunes and run.method is not None


def _prunable(run: PlannedRun, model: ModelSize) -> dict[str, int]:
    return {name: size for part in run.recipe.scope.parts for name, size in model.parts[part].items()}


def event_bytes(method: Method, prunable: Mapping[str, int]) -> int:
    """Bytes of a pruning event, beyond the model's own.

    Args:
        prunable: sizes of the tensors in scope that the encoder has. A task's head is put on it later, so where nothing
            else is pruned there may be none. Heads are small.
    """
    return method.memory_bytes(prunable) if prunable else 0


def _activations(run: PlannedRun, model: ModelSize, data: DataSize | None) -> float:
    """MB that the largest minibatch leaves for its backward pass, in float32.

    Of a layer, 9 tensors of the hidden size, 2 of the feed-forward network's, and the attention's scores and
    probabilities (Korthikanti et al. 2022, section 4.1).
    """
    batches = [run.recipe.training.batch_size] if run.recipe.training else []
    if _is_pruned(run) and run.method.gradient_examples():
        batches.append(getattr(run.method, "gradient_batch_size", 1))
    length = run.task.max_length if data is None else data.longest
    sequences = 1 if data is None else data.sequences
    of_token = model.layers * (4 * (9 * model.hidden + 2 * model.feed_forward) + 10 * model.heads * length)
    if _predicts_words(run):
        of_token += 12 * model.vocabulary  # scores, probabilities and their gradients
    if run.stage.name == "quantize":
        of_token *= 2  # each tensor before and after it is rounded
    return max(batches, default=1) * sequences * length * of_token / MB


def _predicts_words(run: PlannedRun) -> bool:
    return "MaskedLM" in run.task.head.auto_model


def _minutes(run: PlannedRun, sizes: Sizes, on_gpu: bool) -> float:
    """Time of a run's steps, pruning events and evaluation at a rate that is rather too low; its stage's own where
    nothing counts the steps."""
    work = operations(run, sizes)
    if work is None:
        return run.stage.minutes
    rate = GPU_RATE if on_gpu else CPU_RATE * run.experiment.threads
    return FIXED_MINUTES + (work.passes + work.events) / rate / 60


def expected_seconds(work: Work, run: PlannedRun, on_gpu: bool) -> float:
    """What a run's operations are expected to take at the stated rates, which are those of one machine."""
    if on_gpu:
        return (work.passes + work.events) / GPU_RATE
    training = run.recipe.training
    rate = EXPECTED_CPU_RATE[training.precision if training else "float32"]
    return (work.passes / rate + work.events / CPU_RATE) / run.experiment.threads


def operations(run: PlannedRun, sizes: Sizes) -> Work | None:
    """What a run computes; None where nothing counts steps."""
    model, data, recipe = _model(run, sizes), sizes.data_of(run), run.recipe
    if recipe is None or data is None:
        return None
    weights = model.multiplied + (model.hidden * model.vocabulary if _predicts_words(run) else 0)
    forward = 2 * weights * data.tokens * data.sequences  # operations of a feature; backward is as much again, twice
    passes, events, epoch = forward * data.validation, 0.0, 1
    if recipe.training is not None:
        training, epoch = recipe.training, steps_per_epoch(recipe.training, data.train)
        features = total_steps(training, epoch) * training.batch_size * training.gradient_accumulation
        passes += features * forward * (4 if recipe.distillation else 3)
    if _is_pruned(run):
        count = len(pruning_events(recipe.schedule, epoch, run.key.sparsity)) if recipe.schedule else 1
        # Whatever a method holds is read and written for each gradient.
        held = event_bytes(run.method, _prunable(run, model))
        events = count * run.method.gradient_examples() * (3 * forward + held / 2)
    return Work(passes, events)


def _recorded(run: PlannedRun, on_gpu: bool) -> tuple[float, float] | None:
    """The most MB and minutes that a run of the same specification but for its seed has taken, on the same kind of
    machine; None without a record. What cannot be read is left to those who need it."""
    memory, minutes = [], []
    for path in sorted(run.folder.parent.glob(f"seed*/{FILE_NAME}")):
        try:
            record = json.loads(path.read_bytes())
            alike = _but_seed(record["spec"]) == _but_seed(run.specification)
            if alike and (record["environment"]["gpu"] is not None) == on_gpu:
                memory.append(float(record["peak_memory_mb"]))
                minutes.append(run_seconds(record["wall_time_seconds"], record["costs"]) / 60)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return (max(memory), max(minutes)) if memory else None


def _but_seed(specification: Mapping[str, Any]) -> dict[str, Any]:
    return {**specification, "key": {**specification["key"], "seed": None}}


class Asks:
    """What the jobs of an experiment ask for, each found once."""

    def __init__(self, experiment: Experiment, on_gpu: bool):
        self._experiment, self._on_gpu = experiment, on_gpu
        self._found: dict[RunKey, Ask] = {}

    @cached_property
    def _sizes(self) -> Sizes:
        # Not before it is asked for: Snakemake asks when the check has written them.
        return Sizes.of(self._experiment)

    def __getitem__(self, run: PlannedRun) -> Ask:
        if run.key not in self._found:
            self._found[run.key] = ask(run, self._sizes, self._on_gpu)
        return self._found[run.key]
