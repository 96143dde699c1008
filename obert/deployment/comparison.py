"""Given models timed in several engines, each in turns with one of the models in ONNX Runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from obert.deployment.given import Given
from obert.deployment.latency import random_inputs, time_engines
from obert.engines import Engine, failure
from obert.engines.onnxruntime import OnnxRuntime
from obert.experiment.schema import Scenario
from obert.foundation.errors import UserError

_BASELINE = ""  # beside the models' names, none of which is empty


@dataclass(frozen=True)
class Timing:
    """One model in one engine and scenario.

    Attributes:
        engine, model: their names.
        seconds: of each batch.
        baseline: of the base model in the same rounds; None where there is nothing to compare with.
        over: label of the engine that the base model ran in.
        version: of the engine.
        unsupported: the first operator that the engine leaves to a slower way.
    """

    engine: str
    model: str
    scenario: Scenario
    seconds: list[float]
    baseline: list[float] | None
    over: str
    version: str
    unsupported: str | None


@dataclass
class Comparison:
    """What is timed, and what came of it so far.

    Speed-ups are over the base model in ONNX Runtime: an engine's own may be a slow one. An engine that needs hardware
    of its own, such as a GPU, is compared with itself.

    Attributes:
        models: by name.
        base: name of the model that speed-ups are over.
        warmup, iterations: batches that are run first and not timed, and those that are timed.
        notes: what was not timed, and why; and what an engine leaves to a slower way.
    """

    models: Mapping[str, Given]
    base: str
    warmup: int
    iterations: int
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, name: str, engine_class: type[Engine], scenarios: Sequence[Scenario], tell: Callable[[str], None]
    ) -> None:
        """Time the models in an engine, with one number of threads after the other.

        An engine that a model does not fit, or that puts out something else for it, does not time that model. One that
        fails while it is timed leaves what was timed before.

        Args:
            tell: is told what is timed now.

        Raises:
            UserError: the engine does not keep to the number of threads.
        """
        reasons = {model: given.unfit_reason(engine_class) for model, given in self.models.items()}
        for model, reason in reasons.items():
            if reason:
                self.notes.append(f"{name} did not time {model}. {reason}.")
        fit = [model for model, reason in reasons.items() if not reason]
        for threads, chosen in itertools.groupby(scenarios, lambda scenario: scenario.threads):
            with_threads = f"{threads} thread{'s' if threads > 1 else ''}"
            if fit:
                tell(f"timing {name}, {with_threads}")
            engines = dict(self._loaded(name, engine_class, fit, threads))
            try:
                for scenario in chosen if engines else ():
                    self.timings += self._timed(name, engines, scenario)
            except UserError:
                raise
            except Exception as error:  # whatever a library raises: the other engines' timings are good
                self.notes.append(f"{name} failed with {with_threads}: {self._reason(error)}.")
        left = {t.model: t.unsupported for t in self.timings if t.engine == name and t.unsupported}
        for model, operator in left.items():
            self.notes.append(f"{name} leaves a part of {model} to a slower way. First: {operator}.")

    def _loaded(
        self, name: str, engine_class: type[Engine], models: Sequence[str], threads: int
    ) -> Iterator[tuple[str, Engine]]:
        """The models whose outputs the engine puts out."""
        for model in models:
            try:
                yield model, _load(engine_class, self.models[model], threads)
            except Exception as error:  # whatever a library raises, or outputs that differ
                note = f"{name} did not time {model}. {self._reason(error)}."
                if note not in self.notes:  # with another number of threads
                    self.notes.append(note)

    def _timed(self, name: str, engines: dict[str, Engine], scenario: Scenario) -> Iterator[Timing]:
        kind = type(next(iter(engines.values())))
        others, baseline, over = {}, self.base, kind.label
        if kind is not OnnxRuntime and kind.hardware is None:
            others = {_BASELINE: _load(OnnxRuntime, self.models[self.base], scenario.threads)}
            baseline, over = _BASELINE, OnnxRuntime.label
        vocabulary = min(given.contents.vocabulary for given in self.models.values())
        inputs = random_inputs(vocabulary, scenario.batch_size, scenario.sequence_length, seed=0)
        seconds = time_engines(
            others | engines, inputs, threads=scenario.threads, warmup=self.warmup, iterations=self.iterations
        )
        for model, engine in engines.items():
            facts = (seconds.get(baseline), over, engine.version(), engine.unsupported())
            yield Timing(name, model, scenario, seconds[model], *facts)

    def _reason(self, error: Exception) -> str:
        """The first line of why an engine failed, with the models' names for the files that it was given."""
        reason = failure(error).splitlines()[0].removesuffix(".")
        for given in self.models.values():
            reason = given.named(reason)
        return reason


def _load(engine_class: type[Engine], given: Given, threads: int) -> Engine:
    engine = engine_class(given.files, threads)
    given.expected.require(engine)
    return engine
