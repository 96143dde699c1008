"""Time an exported model on this CPU, engine by engine, against the task's dense teacher in the same process."""

import json
import logging
import os
from dataclasses import asdict
from typing import Any

from transformers import AutoConfig

from obert import registry
from obert.engines import Base as Engine
from obert.engines import EngineError, ModelFiles
from obert.errors import UserError
from obert.latency import CONFIDENCE, Summary, measure, random_inputs, require_cores, speedup, summarize
from obert.plan import RunKey, teacher_key
from obert.provenance import code_hash
from obert.records import Record, Score, write_text
from obert.runs import Run
from obert.schema import Benchmark, Experiment
from obert.stages.export import model_files

FILE_NAME = "latencies.json"
log = logging.getLogger(__name__)


def _input_batch(settings: Benchmark, model: ModelFiles, seed: int) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(model.trained, trust_remote_code=False)
    if settings.sequence_length > config.max_position_embeddings:
        raise UserError(
            f"benchmark.sequence_length {settings.sequence_length}: the model has positions for "
            f"{config.max_position_embeddings} tokens; set it to that or less"
        )
    return random_inputs(config.vocab_size, settings.batch_size, settings.sequence_length, seed)


def _time_engine(
    engine_class: type[Engine], models: dict[str, ModelFiles], inputs: dict[str, Any], settings: Benchmark
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each model, and what the engine says of itself: its version, and by model its threads and fallbacks.

    The models are freed on return, before the next engine's.
    """
    engines = {role: engine_class(files, settings.threads) for role, files in models.items()}
    seconds = measure(engines, inputs, threads=settings.threads, warmup=settings.warmup, iterations=settings.iterations)
    unsupported = {role: engine.unsupported() for role, engine in engines.items()}
    return seconds, {
        "version": engines["candidate"].version(),
        "threads": {role: engine.threads() for role, engine in engines.items()},
        "unsupported": {role: operator for role, operator in unsupported.items() if operator},
    }


def _failure(name: str, error: Exception) -> str:
    """Why an engine failed, for the record; the whole of it goes to the log."""
    log.error("%s failed", name, exc_info=error)
    return str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"


def _scores(engine: str, summary: Summary, count: int) -> dict[str, Score]:
    values = {
        "throughput": summary.throughput,
        "latency_p50_ms": summary.p50_ms,
        "latency_p90_ms": summary.p90_ms,
        "latency_p99_ms": summary.p99_ms,
    }
    return {f"{engine}_{name}": Score(value=value, count=count) for name, value in values.items()}


def run(experiment: Experiment, key: RunKey) -> Record:
    """Time one model with every engine of `benchmark.engines` that runs here.

    Writes `latencies.json` (raw seconds of each iteration) and the record. Metrics by engine: throughput in items/s,
    latency percentiles of a batch in ms, and the speed-up over the dense teacher, which a teacher has none of. Engines
    that do not run here are named with the reason in `details["skipped"]`, those that crash, hang or cannot load or run
    a model in `details["failed"]`. `details["engines"]` names by model the first operator that an engine leaves to a
    fallback (`unsupported`), if it says that there is one.

    Raises:
        UserError: more threads than cores, no engine runs here or all fail, an export is missing, the model is too
            short for `benchmark.sequence_length`, or an engine does not keep to the number of threads.
    """
    settings = experiment.benchmark
    require_cores(settings.threads)
    classes = {name: registry.load("engines", name) for name in settings.engines}
    reasons = {name: engine_class.unavailable_reason() for name, engine_class in classes.items()}
    skipped = {name: reason for name, reason in reasons.items() if reason}
    if len(skipped) == len(classes):
        raise UserError(f"no engine of benchmark.engines runs here: {'; '.join(skipped.values())}")

    run = Run(experiment, key, code_hash("benchmark", engines=settings.engines, tasks=key.task))
    source = run.source()
    models = {"candidate": model_files(experiment, key)}
    dense = teacher_key(experiment, key.task).at("export")
    if source.key != dense:
        run.source(dense)
        models = {"dense": model_files(experiment, dense), **models}
    inputs = _input_batch(settings, models["candidate"], key.seed)
    load_average = os.getloadavg()[0]

    samples, metrics, engines, failed = {}, {}, {}, {}
    for name, engine_class in classes.items():
        if name in skipped:
            continue
        try:
            samples[name], said = _time_engine(engine_class, models, inputs, settings)
        except UserError:
            raise
        except Exception as error:  # whatever a library raises: the other engines' timings are good
            failed[name] = _failure(name, error)
            continue
        for role, operator in said["unsupported"].items():
            log.warning("%s leaves a part of the %s model to a fallback: %s", name, role, operator)
        summaries = {role: summarize(seconds, settings.batch_size) for role, seconds in samples[name].items()}
        metrics |= _scores(name, summaries["candidate"], settings.iterations)
        engines[name] = {**said, **{role: asdict(summary) for role, summary in summaries.items()}}
        if "dense" in models:
            ratio, interval = speedup(samples[name]["dense"], samples[name]["candidate"])
            metrics[f"{name}_speedup"] = Score(value=ratio, count=settings.iterations)
            engines[name]["speedup_interval"] = interval
    if not samples:
        reasons = "; ".join(reason.partition("\n")[0] for reason in (*failed.values(), *skipped.values()))
        raise UserError(f"no engine of benchmark.engines could be timed: {reasons}")
    raw = {"unit": "s", "batch_size": settings.batch_size, "engines": samples}
    write_text(run.folder / FILE_NAME, json.dumps(raw) + "\n")
    return run.finish(
        threads=settings.threads,
        files=(FILE_NAME,),
        model=source.model,
        sparsity=source.sparsity,
        metrics=metrics,
        details={
            "batch_size": settings.batch_size,
            "sequence_length": settings.sequence_length,
            "warmup": settings.warmup,
            "confidence": CONFIDENCE,
            "load_average_before": load_average,
            "engines": engines,
            "skipped": skipped,
            "failed": failed,
        },
    )
