"""Time exported models by hand, without an experiment."""

from pathlib import Path

from tabulate import tabulate

from obert.deployment.export import file_sizes_mb
from obert.deployment.latency import random_inputs, require_cores, speedup, summarize_latency, time_engines
from obert.deployment.timing import BASELINE
from obert.engines import EngineError, ModelFiles, failure
from obert.experiment.schema import Benchmark
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.stages.export import REFERENCE_ENGINE

TOKENS = 100  # ids are drawn below this: every vocabulary has as many, and the time does not depend on them
COLUMNS = ("engine", "model", "items/s", "p50 ms", "p90 ms", "p99 ms", "speed-up", "95 % interval", "gzip MB")


def run(paths: list[Path], settings: Benchmark) -> str:
    """A table of speeds: every model in every engine, in turns with the first model in ONNX Runtime, and against that.

    Raises:
        UserError: a file is missing, there are more threads than cores, or no engine runs here.
    """
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"no such file: {', '.join(missing)}. Name ONNX files that `obert export` wrote (model.onnx)")
    require_cores(settings.threads)
    models = {str(path): ModelFiles(path, path.parent, None) for path in paths}
    sizes = {name: file_sizes_mb(files.onnx)[1] for name, files in models.items()}
    inputs = random_inputs(TOKENS, settings.batch_size, settings.sequence_length, 0)
    reference, first = registry.load("engines", REFERENCE_ENGINE), next(iter(models))
    rows, notes = [], []
    for name in settings.engines:
        engine_class = registry.load("engines", name)
        if reason := engine_class.unavailable_reason():
            notes.append(f"{name} was not timed. {reason}.")
            continue
        if engine_class.reads_trained:
            notes.append(
                f"{name} was not timed. It runs the trained model, and exported files are what is timed by hand."
            )
            continue
        try:
            if unfit := next(filter(None, map(engine_class.unfit_reason, models.values())), None):
                raise EngineError(unfit)
            engines = {path: engine_class(files, settings.threads) for path, files in models.items()}
            timed = dict(engines)
            if engine_class is not reference:
                timed = {BASELINE: reference(models[first], settings.threads), **engines}
            seconds = time_engines(
                timed, inputs, threads=settings.threads, warmup=settings.warmup, iterations=settings.iterations
            )
        except UserError:
            raise
        except Exception as error:  # whatever a library raises of a file that it cannot load or run
            notes.append(f"{name} failed: {failure(error)}")
            continue
        against = seconds.get(BASELINE, seconds[first])
        for path in engines:
            taken = seconds[path]
            found, (ratio, (low, high)) = summarize_latency(taken, settings.batch_size), speedup(against, taken)
            times = (found.throughput, found.p50_ms, found.p90_ms, found.p99_ms, ratio)
            rows.append((name, path, *times, f"[{low:.2f}, {high:.2f}]", sizes[path]))
            if operator := engines[path].unsupported():
                notes.append(f"{name} leaves a part of {path} to a slower fallback. First: {operator}.")
    if not rows:
        raise UserError("no engine could time them. " + " ".join(notes))
    return "\n".join([tabulate(rows, COLUMNS, floatfmt=".2f"), *notes])
