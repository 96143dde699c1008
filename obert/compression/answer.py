"""The answer in three lines: how far, how accurate, how fast."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from obert.compression.question import Question
from obert.compression.verdict import Verdict, format_drop, surprise, weakness
from obert.records.load import busy_before
from obert.records.record import MODEL, Record
from obert.statistics.formatting import format_number
from obert.tables import Results

ENGINE = "sparse"


def answer(results: Results, question: Question, tried: Sequence[str], judged: int) -> str:
    """What was found, and where it is.

    Args:
        results: of the final experiment, whose runs have been made.
        tried: the search's trials, a line each.
        judged: held-out training examples that judged them.

    Raises:
        UserError: predictions of a run are missing or damaged.
    """
    pruned = results.of_stage("downstream")
    dense = results.dense(question.task)
    verdict = Verdict.of(results, dense.key, [record.key for record in pruned])
    timed = next(record for record in results.of_stage("benchmark") if record.key.method is not None)
    exported = next(record for record in results.of_stage("export") if record.key.method is not None)
    lines = [
        f"how far: {100 * pruned[0].key.sparsity:g} % of the encoder's weights are zero, pruned by {question.method}: "
        f"the most of what was tried that is sure to lose at most {question.max_drop:g} points, by "
        f"{judged:,} held-out training examples",
        f"how accurate: {_accurate(dense, verdict, len(pruned))}",
        f"how fast: {_fast(timed)}",
        *filter(None, [weakness(results, question.task), surprise(verdict, question.max_drop)]),
        "",
        "Tried on held-out training examples, one seed each:",
        *tried,
        f"Model and card: {results.folder / pruned[0].key.path / MODEL}",
        f"For deployment: {results.folder / exported.key.path / 'model.onnx'}",
        f"Runs, for tables and report: {results.config}, then `python -m obert tables --config "
        f"{shlex.quote(results.config)}`",
    ]
    return "\n".join(lines)


def _accurate(dense: Record, verdict: Verdict, seeds: int) -> str:
    metric = dense.primary_metric
    low, high = (format_number(bound) for bound in (verdict.interval.low, verdict.interval.high))
    return (
        f"{metric} {format_number(verdict.score)} [{low}, {high}], {format_drop(verdict.drop)} "
        f"({format_number(dense.metrics[metric].value)}), on {verdict.examples:,} validation examples, the mean of "
        f"{seeds} models with fresh seeds; 95 % intervals over examples"
    )


def _fast(timed: Record) -> str:
    """The project's own engine on the pruned model, against the dense one in ONNX Runtime."""
    speedup = timed.metrics.get(f"{ENGINE}_speedup")
    if speedup is None:
        reasons = {**timed.details["skipped"], **timed.details["failed"]}
        return f"not timed: {reasons.get(ENGINE, 'the engine did not run')}"
    scenario, engine = timed.details["scenarios"][0], timed.details["engines"][ENGINE]
    low, high = engine["speedup_interval"]
    latency = timed.metrics[f"{ENGINE}_latency_p50_ms"].value
    in_use = busy_before(timed)
    note = "" if in_use is None else f". The machine was not idle ({in_use:.1f} cores in use): take this with care"
    return (
        f"{speedup.value:.2f} [{low:.2f}, {high:.2f}] times as fast as the dense model in ONNX Runtime: "
        f"{latency:.1f} ms for {scenario['batch_size']} x {scenario['sequence_length']} tokens in the engine "
        f"`{ENGINE}`, {_threads(scenario['threads'])} of {timed.environment.get('cpu')}{note}"
    )


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"
