"""Given models timed in one engine, in turns with one of them in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from obert.deployment.given import Given
from obert.deployment.latency import random_inputs, time_engines
from obert.engines import Engine
from obert.engines.onnxruntime import OnnxRuntime
from obert.experiment.schema import Scenario

_BASELINE = ""  # beside the models' names, none of which is empty


@dataclass(frozen=True)
class Timing:
    """One model in one engine and scenario.

    Attributes:
        seconds: of each batch.
        baseline: of the base model in the same rounds; None where there is nothing to compare with.
        over: label of the engine that the base model ran in.
        version: of the engine.
        unsupported: the first operator that the engine leaves to a slower way.
    """

    model: str
    scenario: Scenario
    seconds: list[float]
    baseline: list[float] | None
    over: str
    version: str
    unsupported: str | None


def time_in(
    engine_class: type[Engine],
    models: Mapping[str, Given],
    base: tuple[str, Given],
    scenarios: Sequence[Scenario],
    *,
    warmup: int,
    iterations: int,
) -> Iterator[Timing]:
    """Time models in an engine, scenario by scenario, each after its outputs have been compared.

    Speed-ups are over the base model in ONNX Runtime: an engine's own may be a slow one. An engine that needs hardware
    of its own, such as a GPU, is compared with itself.

    Args:
        models: by name, those that the engine can run.
        base: what speed-ups are over, by the name that it has among the models.
        scenarios: of one number of threads.

    Raises:
        EngineError: an engine's outputs are not those of the model.
        UserError: an engine does not keep to the number of threads.
    """
    threads = scenarios[0].threads
    engines = {name: _loaded(engine_class, given, threads) for name, given in models.items()}
    others, baseline, over = {}, base[0], engine_class.label
    if engine_class is not OnnxRuntime and engine_class.hardware is None:
        others = {_BASELINE: _loaded(OnnxRuntime, base[1], threads)}
        baseline, over = _BASELINE, OnnxRuntime.label
    vocabulary = min(given.contents.vocabulary for given in (base[1], *models.values()))
    for scenario in scenarios:
        inputs = random_inputs(vocabulary, scenario.batch_size, scenario.sequence_length, seed=0)
        seconds = time_engines(others | engines, inputs, threads=threads, warmup=warmup, iterations=iterations)
        for name, engine in engines.items():
            version, unsupported = engine.version(), engine.unsupported()
            yield Timing(name, scenario, seconds[name], seconds.get(baseline), over, version, unsupported)


def _loaded(engine_class: type[Engine], given: Given, threads: int) -> Engine:
    engine = engine_class(given.files, threads)
    given.expected.require(engine)
    return engine
