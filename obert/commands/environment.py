"""Stage `environment`: makes the virtual environments of engines whose library needs one of its own."""

import time

from obert.experiment.schema import Experiment
from obert.foundation import registry
from obert.foundation.environments import FOLDER


def needed(experiment: Experiment) -> tuple[str, ...]:
    """The engines of an experiment's benchmark whose library needs an environment of its own."""
    engines = experiment.benchmark.engines if experiment.benchmark else ()
    return tuple(name for name in engines if registry.load("engines", name).environment is not None)


def run(engine: str) -> None:
    """Make an engine's environment unless it is there, and say what was done. Where it cannot be made, say why.

    Raises:
        UserError: no such engine.
    """
    environment = registry.load("engines", engine).environment
    if environment is None:
        print(f"{engine}: needs no environment of its own")
        return
    started = time.perf_counter()
    reason = environment.make()
    seconds = time.perf_counter() - started
    if reason is None:
        print(f"{engine}: {FOLDER / environment.library} is ready ({seconds:.0f} s)")
    else:
        print(f"{engine}: no environment, so the benchmark will skip it: {reason}")
