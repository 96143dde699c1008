"""Time an exported model on this CPU, engine by engine, against the task's dense teacher in the same process."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

from transformers import AutoConfig

from obert.deployment.engine_scores import score_in
from obert.deployment.latency import (
    CONFIDENCE,
    Summary,
    random_inputs,
    require_cores,
    speedup,
    summarize_latency,
    time_engines,
)
from obert.engines import Engine, ModelFiles, failure
from obert.experiment.keys import RunKey
from obert.experiment.plan import teacher_key
from obert.experiment.recipes import load_task
from obert.experiment.schema import Benchmark, Experiment, Scenario
from obert.foundation import registry
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError
from obert.foundation.files import write_text
from obert.models.encoders import load_tokenizer
from obert.records.record import Record, Score
from obert.records.run import Run
from obert.stages.export import model_files
from obert.tasks import Task
from obert.training.features import Features

FILE_NAME = "latencies.json"
log = logging.getLogger(__name__)


def _input_batch(scenario: Scenario, model: ModelFiles, seed: int) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(model.trained, trust_remote_code=False)
    if scenario.sequence_length > config.max_position_embeddings:
        raise UserError(
            f"benchmark.sequence_length {scenario.sequence_length}: the model has positions for "
            f"{config.max_position_embeddings} tokens; set it to that or less"
        )
    return random_inputs(config.vocab_size, scenario.batch_size, scenario.sequence_length, seed)


@dataclass(frozen=True)
class Timed:
    """One engine in one scenario: seconds of each model, what the engine says of itself, scores of the candidate."""

    seconds: dict[str, list[float]]
    said: dict[str, Any]
    scores: dict[str, Score]


def _time_engine(
    engine_class: type[Engine],
    models: dict[str, ModelFiles],
    scenario: Scenario,
    settings: Benchmark,
    seed: int,
    data: tuple[Task, Features] | None,
) -> Timed:
    """Time the models, then score the candidate. They are freed on return, before the next engine's."""
    inputs = _input_batch(scenario, models["candidate"], seed)
    engines = {role: engine_class(files, scenario.threads) for role, files in models.items()}
    seconds = time_engines(
        engines, inputs, threads=scenario.threads, warmup=settings.warmup, iterations=settings.iterations
    )
    unsupported = {role: engine.unsupported() for role, engine in engines.items()}
    linear = {role: engine.linear_seconds(inputs) for role, engine in engines.items()}
    said = {
        "version": engines["candidate"].version(),
        "threads": {role: engine.threads() for role, engine in engines.items()},
        "unsupported": {role: operator for role, operator in unsupported.items() if operator},
        "linear_seconds": {role: seconds for role, seconds in linear.items() if seconds is not None},
    }
    scores = {}
    if data is not None:
        task, features = data
        padding = features.collator.tokenizer.pad_token_id
        scores = score_in(engines["candidate"], task, features.features, features.examples, padding)
    return Timed(seconds, said, scores)


def _speeds(summary: Summary, count: int) -> dict[str, Score]:
    values = {
        "throughput": summary.throughput,
        "latency_p50_ms": summary.p50_ms,
        "latency_p90_ms": summary.p90_ms,
        "latency_p99_ms": summary.p99_ms,
    }
    return {name: Score(value=value, count=count) for name, value in values.items()}


def run(experiment: Experiment, key: RunKey) -> Record:
    """Time one model with every engine of `benchmark.engines` that runs here, in every scenario.

    Writes `latencies.json` (raw seconds of each iteration) and the record. Metrics by engine: throughput in items/s,
    latency percentiles of a batch in ms, the speed-up over the dense teacher, which a teacher has none of, and the
    task's scores over the validation examples in that very engine; of further scenarios, named in the metric, speeds
    alone. Engines that do not run here, or would mean nothing, are named with the reason in `details["skipped"]`, those
    that crash, hang or cannot load or run a model in `details["failed"]`. `details["engines"]` names by model the first
    operator that an engine leaves to a fallback (`unsupported`), if it says that there is one, and the seconds that the
    linear layers take (`linear_seconds`), if it can tell.

    Raises:
        UserError: more threads than cores, no engine runs here or all fail, an export is missing, the model is too
            short for a scenario, or an engine does not keep to the number of threads.
    """
    settings = experiment.benchmark
    for scenario in settings.scenarios:
        require_cores(scenario.threads)
    run = Run(experiment, key, code_hash("benchmark", engines=settings.engines, tasks=key.task))
    source = run.source()
    models = {"candidate": model_files(experiment, key)}
    dense = teacher_key(experiment, key.task).at("export")
    if source.key != dense:
        run.source(dense)
        models = {"dense": model_files(experiment, dense), **models}
    classes = {name: registry.load("engines", name) for name in settings.engines}
    reasons = {n: c.unavailable_reason() or c.unfit_reason(models["candidate"]) for n, c in classes.items()}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    if len(skipped) == len(classes):
        raise UserError(f"no engine of benchmark.engines runs here: {'; '.join(skipped.values())}")
    load_average = os.getloadavg()[0]
    data = _validation(experiment, key, models["candidate"])

    samples, metrics, engines, failed = {}, {}, {}, {}
    for name, engine_class in classes.items():
        for index, scenario in enumerate(settings.scenarios):
            if name in skipped or name in failed:
                continue
            place = name if index == 0 else f"{name}_{scenario}"
            try:
                timed = _time_engine(engine_class, models, scenario, settings, key.seed, data if index == 0 else None)
            except UserError:
                raise
            except Exception as error:  # whatever a library raises: the other engines' timings are good
                log.error("%s failed", name, exc_info=error)  # the whole of it; the reason goes to the record
                failed[name] = failure(error)
                continue
            for role, operator in timed.said["unsupported"].items():
                log.warning("%s leaves a part of the %s model to a fallback: %s", name, role, operator)
            samples[place] = timed.seconds
            summaries = {
                role: summarize_latency(seconds, scenario.batch_size) for role, seconds in timed.seconds.items()
            }
            found = _speeds(summaries["candidate"], settings.iterations) | timed.scores
            engines[place] = {**timed.said, **{role: asdict(summary) for role, summary in summaries.items()}}
            if "dense" in models:
                ratio, interval = speedup(timed.seconds["dense"], timed.seconds["candidate"])
                found["speedup"] = Score(value=ratio, count=settings.iterations)
                engines[place]["speedup_interval"] = interval
            metrics |= {f"{place}_{metric}": score for metric, score in found.items()}
    if not samples:
        reasons = "; ".join(reason.partition("\n")[0] for reason in (*failed.values(), *skipped.values()))
        raise UserError(f"no engine of benchmark.engines could be timed: {reasons}")
    write_text(run.folder / FILE_NAME, json.dumps({"unit": "s", "engines": samples}) + "\n")
    return run.finish(
        threads=settings.threads,
        files=(FILE_NAME,),
        model=source.model,
        sparsity=source.sparsity,
        metrics=metrics,
        details={
            "scenarios": [scenario.model_dump() for scenario in settings.scenarios],
            "warmup": settings.warmup,
            "confidence": CONFIDENCE,
            "load_average_before": load_average,
            "engines": engines,
            "skipped": skipped,
            "failed": failed,
        },
    )


def _validation(experiment: Experiment, key: RunKey, model: ModelFiles) -> tuple[Task, Features]:
    task = load_task(key.task, experiment.options_of(key.task), f"tasks.{key.task}")
    return task, Features.encode(task, task.load()["validation"], load_tokenizer(model.trained))
