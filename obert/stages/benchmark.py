"""CPU timing of exported models."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING, Any

from obert.experiment.keys import RunKey
from obert.foundation import registry
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError
from obert.foundation.files import plain, write_text
from obert.models import architectures
from obert.records.record import DECIDED, MODEL
from obert.stages import Sources, Stage
from obert.stages.export import REFERENCE_ENGINE, model_files
from obert.statistics import CONFIDENCE

if TYPE_CHECKING:
    from obert.engines import ModelFiles
    from obert.experiment.plan import Plan, PlannedRun
    from obert.records.record import Record
    from obert.training.features import Features

DENSE = "dense"  # the role of the task's dense teacher, exported; as in obert.deployment.timing
LATENCIES = "latencies"
log = logging.getLogger(__name__)


class Benchmark(Stage):
    """Time an exported model on the CPU against the dense one; or, by hand, any models."""

    after = ("export",)
    files = {LATENCIES: "latencies.json"}
    exclusive = True
    memory_mb = 5000  # two workers of DeepSparse take 3 GB while they compile models of BERT-base size

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        exported = plan.of_stage("export")
        for engine in plan.experiment.benchmark.engines if exported else ():
            registry.require("engines", engine, f"{plan.where}, benchmark.engines")
        for run in exported:
            dense = plan[plan.teacher(run.key.task).key.at(run.key.stage)]
            sources = {MODEL: run} if run is dense else {MODEL: run, DENSE: dense}
            yield run.key.at(self.name), sources

    def settings(self, planned: PlannedRun) -> dict[str, Any]:
        """What is timed with, and how."""
        chosen = planned.experiment.benchmark
        settings = chosen.model_dump(mode="json", exclude={"recipes", "methods", "sparsities", "also"})
        further = [scenario.model_dump(mode="json") for scenario in chosen.scenarios_of(planned.key.task)[1:]]
        return {"benchmark": {**settings, "also": further}}

    def code(self, planned: PlannedRun) -> str:
        engines = {*planned.experiment.benchmark.engines, REFERENCE_ENGINE}
        return code_hash(stages=self.name, engines=engines, tasks=planned.task_kind, **architectures.code())

    def run(self, planned: PlannedRun) -> Record:
        """Time one model with every engine of `benchmark.engines` that runs here, in every scenario.

        Writes `latencies.json` (raw seconds of each iteration) and the record. Metrics by engine: throughput in
        items/s, latency percentiles of a batch in ms, the speed-up over the dense teacher in ONNX Runtime (of an engine
        on other hardware: in itself), and the task's scores over the validation examples in that very engine; of
        further scenarios, named in the metric, speeds alone. Engines that do not run here, or would mean nothing, are
        named with the reason in `details["skipped"]`, those that crash, hang or cannot load or run a model in
        `details["failed"]`. `details["engines"]` names by model the first operator that an engine leaves to a fallback
        (`unsupported`), if it says that there is one, and the seconds that the linear layers take (`linear_seconds`),
        if it can tell.

        Raises:
            UserError: more threads than cores, no engine runs here or all fail, an export is missing, the model is too
                short for a scenario, or an engine does not keep to the number of threads.
        """
        from obert.deployment.latency import require_cores, speedup, summarize_latency
        from obert.deployment.timing import CANDIDATE, check_lengths, speeds, time_engine
        from obert.engines import failure
        from obert.records.load import IN_USE, Load
        from obert.records.record import Score
        from obert.records.recording import Recording

        settings = planned.experiment.benchmark
        scenarios = settings.scenarios_of(planned.key.task)
        for scenario in scenarios:
            require_cores(scenario.threads)
        recording = Recording(planned)
        source = recording.sources[MODEL]
        models = {CANDIDATE: model_files(planned.sources[MODEL])}
        if DENSE in planned.sources:
            models = {DENSE: model_files(planned.sources[DENSE]), **models}
        check_lengths(scenarios, models[CANDIDATE].trained)
        reference = registry.load("engines", REFERENCE_ENGINE)
        classes = {name: registry.load("engines", name) for name in settings.engines}
        reasons = {n: c.unavailable_reason() or c.unfit_reason(models[CANDIDATE]) for n, c in classes.items()}
        skipped = {name: reason for name, reason in reasons.items() if reason}
        if len(skipped) == len(classes):
            raise UserError(f"no engine of benchmark.engines runs here: {'; '.join(skipped.values())}")
        load = Load.now()
        data = _validation(planned, source, models[CANDIDATE])

        samples, metrics, engines, failed = {}, {}, {}, {}
        for name, engine_class in classes.items():
            for index, scenario in enumerate(scenarios):
                if name in skipped or name in failed:
                    continue
                place = name if index == 0 else f"{name}_{scenario}"
                try:
                    scored = data if index == 0 else None
                    timed = time_engine(engine_class, reference, models, scenario, settings, planned.key.seed, scored)
                    summaries = {
                        role: summarize_latency(seconds, scenario.batch_size) for role, seconds in timed.seconds.items()
                    }
                    found = speeds(summaries[CANDIDATE], settings.iterations) | timed.scores
                    said = {**timed.said, **{role: asdict(summary) for role, summary in summaries.items()}}
                    if timed.baseline is not None:
                        ratio, interval = speedup(timed.seconds[timed.baseline], timed.seconds[CANDIDATE])
                        found["speedup"] = Score(value=ratio, count=settings.iterations)
                        said |= {"speedup_over": timed.baseline, "speedup_interval": interval}
                except UserError:
                    raise
                except Exception as error:  # whatever a library raises: the other engines' timings are good
                    log.error("%s failed", name, exc_info=error)  # the whole of it; the reason goes to the record
                    failed[name] = failure(error)
                    continue
                for role, operator in timed.said["unsupported"].items():
                    log.warning("%s leaves a part of the %s model to a fallback: %s", name, role, operator)
                samples[place], engines[place] = timed.seconds, said
                metrics |= {f"{place}_{metric}": score for metric, score in found.items()}
        if not samples:
            reasons = "; ".join(reason.partition("\n")[0] for reason in (*failed.values(), *skipped.values()))
            raise UserError(f"no engine of benchmark.engines could be timed: {reasons}")
        recording.replace()
        latencies = {"unit": "s", "engines": samples}
        write_text(planned.folder / self.files[LATENCIES], json.dumps(latencies, default=plain) + "\n")
        return recording.finish(
            threads=settings.threads,
            files=tuple(self.files.values()),
            model=source.model,
            sparsity=source.sparsity,
            metrics=metrics,
            details={
                "scenarios": [scenario.model_dump() for scenario in scenarios],
                "warmup": settings.warmup,
                "confidence": CONFIDENCE,
                "load_average_before": load.average,
                IN_USE: load.in_use,
                "engines": engines,
                "skipped": skipped,
                "failed": failed,
            },
        )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _by_hand().add_arguments(parser)

    def run_by_hand(self, arguments: argparse.Namespace) -> str | None:
        return _by_hand().run(arguments)


def _by_hand() -> ModuleType:
    # Not an import statement: the code hash follows those, and what is timed by hand does not decide a run.
    return importlib.import_module("obert.commands.benchmark")


def _validation(planned: PlannedRun, exported: Record, model: ModelFiles) -> Features:
    from obert.models.encoders import load_tokenizer
    from obert.training.features import Features

    task = planned.task.model_copy(update=exported.details.get(DECIDED))
    return Features.encode(task, task.load()["validation"], load_tokenizer(model.trained))
