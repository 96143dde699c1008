"""What the runs of a plan that are still to be made will take: time, memory, and how that is known."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from obert.experiment.estimates import RATE, Estimate, Estimates, in_words, seconds_left
from obert.experiment.plan import PlannedRun
from obert.foundation.nodes import Node

COLUMNS = ("stage", "runs", "each", "one by one", "GB at most", "goes by")
DASH = "\N{EN DASH}"
UNKNOWN = "nothing yet"
UNCOUNTED = "Where nothing is known: `obert check` counts what runs train on; the first of the others tells."
ROUGH = "A stated rate is that of one machine: here, times may be several times as long. Finished runs mend that."


def run(estimates: Estimates, runs: Sequence[PlannedRun], machine: Node, cores: int | None) -> str:
    """A table of those that are not done, and what they take together.

    Args:
        runs: the chosen ones.
        cores: that they share, the machine's by default.
    """
    cores = cores or machine.cpus
    pending = [run for run in runs if not estimates.is_done(run)]
    if not pending:
        return "estimate: nothing is left to be made"
    groups: dict[tuple[str, str], list[tuple[PlannedRun, Estimate | None]]] = {}
    for each in pending:
        found = estimates[each]
        groups.setdefault((each.key.stage, found.basis if found else UNKNOWN), []).append((each, found))
    rows = [_row(stage, basis, [found for _, found in group]) for (stage, basis), group in groups.items()]
    known = {each: estimates[each].seconds for each in pending if estimates[each]}
    named = f"{len(pending)} run{'' if len(pending) == 1 else 's'} to be made"
    if known:
        together = in_words(seconds_left(known, cores, machine.gpus))
        named += f", about {together} on {cores} core{'' if cores == 1 else 's'}"
        named += f" without the {len(pending) - len(known)} of unknown length" if len(known) < len(pending) else ""
    lines = [f"estimate: {named}", tabulate(rows, headers=COLUMNS, disable_numparse=True)]
    lines += [UNCOUNTED] if len(known) < len(pending) else []
    lines += [ROUGH] if any(basis == RATE for _, basis in groups) else []
    return "\n".join(lines)


def _row(stage: str, basis: str, found: Sequence[Estimate | None]) -> tuple[str | int, ...]:
    if basis == UNKNOWN:
        return (stage, len(found), DASH, DASH, DASH, basis)
    seconds = [estimate.seconds for estimate in found]
    shortest, longest = in_words(min(seconds)), in_words(max(seconds))
    one = shortest if shortest == longest else f"{shortest} to {longest}"
    gigabytes, count = max(each.memory_mb for each in found) / 1000, max(each.count for each in found)
    goes_by = f"{basis} ({count})" if count else basis
    return (stage, len(found), one, in_words(sum(seconds)), f"{gigabytes:.1f}", goes_by)
