"""What jobs ask of a machine, whether there is one that has it, and what a job ran out of."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.resources import ACTIVATIONS, EVENT, Ask, Asks
from obert.foundation.accelerators import gpu_count
from obert.foundation.errors import UserError
from obert.foundation.memory import allowance
from obert.foundation.nodes import ANY, SLURM, THIS, Node, slurm_nodes, this_machine
from obert.records import finished

COLUMNS = ("stage", "task", "recipe", "method", "runs", "CPUs", "GPUs", "GB", "hours", "of the GB")
DASH = "\N{EN DASH}"


def nodes_of(where: str | None) -> tuple[str, tuple[Node, ...]]:
    """Where jobs run, by a name for messages, and the machines there; none where they are not known.

    Args:
        where: `this`, `slurm` or `any`; by default SLURM's nodes if there are any, and this machine if not.

    Raises:
        UserError: SLURM is asked for and does not answer.
    """
    if where == ANY:
        return ANY, ()
    if where == THIS:
        return THIS, (this_machine(),)
    try:
        nodes = slurm_nodes()
        if not nodes:
            raise UserError("there is no SLURM here")
    except UserError:
        if where == SLURM:
            raise
        return nodes_of(THIS)
    return SLURM, nodes


def asks(plan: Plan, nodes: Sequence[Node]) -> dict[PlannedRun, Ask]:
    """What the job of every run asks for on these machines."""
    found = Asks(plan.experiment, any(node.gpus for node in nodes))
    return {run: found[run] for run in plan}


def fit(asks: Mapping[PlannedRun, Ask], where: str, nodes: Sequence[Node]) -> str:
    """What the jobs that are still to be made ask for at most.

    Args:
        asks: of every run that is planned.
        where, nodes: as `nodes_of` returns them. On this machine, whose memory nobody shares out, a job may take what
            there is; a cluster must have what it asks for.

    Raises:
        UserError: a job asks for less memory than its run surely takes, or for more than any of the machines has.
    """
    pending = {run: asks[run] for run in finished.pending(asks)}
    if not pending:
        return "jobs: none left"
    for run, each in pending.items():
        if each.memory_mb < each.surely_mb:
            raise _too_little(run, each, f"its job asks for {each.memory_mb / 1000:.1f} GB", "ask for more, ")
    if nodes:
        _require_cpus(pending, where, nodes)
        largest, machine = _memory(where, nodes)
        for run, each in sorted(pending.items(), key=lambda pair: -pair[1].memory_mb):
            if where == THIS and each.surely_mb > largest:
                raise _too_little(run, each, machine, "")
            if where != THIS and each.memory_mb > largest:
                raise _too_little(run, each, f"its job asks for {each.memory_mb / 1000:.1f} GB; {machine}", "")
        if not any(node.gpus for node in nodes) and any(each.gpus for each in pending.values()):
            raise UserError(f"jobs ask for a GPU, and no machine has one ({where}): start without `gpu`")
    most = max(pending, key=lambda run: pending[run].memory_mb)
    each, hours = pending[most], max(each.minutes for each in pending.values()) / 60
    return (
        f"jobs: {len(pending)}, asking for up to {each.memory_mb / 1000:.1f} GB ({most.key.stage} "
        f"{most.key.arguments}: {_parts(each)}) and {hours:.1f} hours each"
    )


def _memory(where: str, nodes: Sequence[Node]) -> tuple[float, str]:
    """What the largest machine has, in the unit of what jobs ask for, and that in words.

    SLURM takes the numbers that jobs ask for in its own unit, so they are compared with its nodes' as they are. Here a
    container or a job may be given less than the machine has.
    """
    largest = max(node.memory_mb for node in nodes)
    if where != THIS:
        return largest, f"{_machine(where)} has {largest / 1000:.1f} GB"
    whole, own = largest * 2**20 / 1e6, allowance()
    if own is None or own.limit / 1e6 >= whole:
        return whole, f"{_machine(where)} has {whole / 1000:.1f} GB"
    given = own.limit / 1e6
    return given, f"this container or job is given {given / 1000:.1f} GB of this machine's {whole / 1000:.1f} GB"


def _machine(where: str) -> str:
    return "this machine" if where == THIS else "the largest node of the cluster"


def _require_cpus(pending: Mapping[PlannedRun, Ask], where: str, nodes: Sequence[Node]) -> None:
    """Raise UserError for a job that takes more CPUs than there are; training on this machine takes what there is."""
    largest = max(node.cpus for node in nodes)
    for run, each in pending.items():
        if each.cpus > largest and (each.exclusive or where != THIS):
            key = "benchmark.threads" if each.exclusive else "threads"
            alone = "a machine of its own with " if each.exclusive else ""
            raise UserError(
                f"{run.key.stage} {run.key.arguments}: its job takes {alone}{each.cpus} CPUs ({key}), and "
                f"{_machine(where)} has {largest}. Lower {key}, or take other machines"
            )


def _parts(each: Ask) -> str:
    """What takes the memory, the largest first."""
    found = sorted(each.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size / 1000:.1f}" for name, size in found if size >= 50)


def _too_little(run: PlannedRun, each: Ask, has: str, other: str) -> UserError:
    event = each.parts.get(EVENT, 0.0)
    what = f"a pruning event needs {event / 1000:.1f} GB, " if event >= each.surely_mb / 2 else ""
    return UserError(
        f"{run.key.stage} {run.key.arguments}: {what}the run {sum(each.parts.values()) / 1000:.1f} GB in all "
        f"({_parts(each)}), and {has}. To mend it, {other}{remedy(run, each)}"
    )


def remedy(run: PlannedRun, each: Ask) -> str:
    """How a run takes less memory, by what takes most of it."""
    parts = {name: size for name, size in each.parts.items() if name in (EVENT, ACTIVATIONS)}
    largest = max(parts, key=parts.__getitem__, default=None)
    if largest == EVENT:
        place, fields = f"methods.{run.key.method}", type(run.method).model_fields
        if "fisher_memory" in fields:
            return f"set {place}.fisher_memory (GB) to work in several passes, or lower {place}.fisher_block_size"
        if "num_gradients" in fields:
            return f"lower {place}.num_gradients"
    if largest == ACTIVATIONS and run.recipe.training is not None:
        return (
            "lower training.batch_size and raise training.gradient_accumulation by as much, or lower "
            f"tasks.{run.key.task}.max_length"
        )
    return "take a larger machine, or keep fewer layers (model.layers)"


def run(plan: Plan, chosen: Mapping[str, Any], where: str | None) -> str:
    """A table of what the jobs of the chosen runs ask for, those alike but for sparsity and seed together.

    Raises:
        UserError: no run is chosen, or SLURM is asked for and does not answer.
    """
    _, nodes = nodes_of(where)
    asks = Asks(plan.experiment, any(node.gpus for node in nodes))
    groups: dict[tuple, list[PlannedRun]] = {}
    for planned in plan.chosen(chosen):
        key = planned.key
        groups.setdefault((key.stage, key.task, key.recipe, key.method or DASH), []).append(planned)
    rows = []
    for names, same in groups.items():
        each = max((asks[planned] for planned in same), key=lambda found: found.memory_mb)
        hours = max(asks[planned].minutes for planned in same) / 60
        cpus = f"{each.cpus}, alone" if each.exclusive else each.cpus
        rows.append((*names, len(same), cpus, each.gpus, f"{each.memory_mb / 1000:.1f}", f"{hours:.1f}", _parts(each)))
    return tabulate(rows, headers=COLUMNS, disable_numparse=True)


def killed(plan: Plan, planned: PlannedRun, status: int, asked_mb: int) -> str:
    """What to say of a job whose process was ended by a signal.

    Args:
        status: that the shell gives, 128 and the signal's number.
        asked_mb: of memory, by the job.
    """
    number = status - 128
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    said = f"{planned.key.stage} {planned.key.arguments}: ended by {name}."
    if number != signal.SIGKILL:
        return f"{said} The next attempt goes on from its last checkpoint, if it has one."
    own, each = allowance(), Asks(plan.experiment, gpu_count() > 0)[planned]
    if own is not None and own.killed:
        said += " It ran out of memory."
    else:
        said += " Most likely it ran out of memory, or somebody ended it."
    used = f", {own.peak / 1e9:.1f} GB of them used at the most" if own is not None and own.peak else ""
    return (
        f"{said} Its job asked for {asked_mb / 1000:.1f} GB{used}; the run takes about "
        f"{sum(each.parts.values()) / 1000:.1f} GB ({_parts(each)}). The next attempt asks for more, and goes on from "
        f"the last checkpoint. To take less, {remedy(planned, each)}."
    )
