"""How fast models are on this machine: folders of Hugging Face models and ONNX files, without an experiment."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obert.experiment.reading import validate
from obert.experiment.schema import Benchmark, Scenario
from obert.foundation import registry
from obert.foundation.errors import UserError, say
from obert.foundation.files import check_folder
from obert.foundation.nodes import granted_cores
from obert.records.load import BUSY, Load

if TYPE_CHECKING:
    from obert.deployment.comparison import Comparison
    from obert.engines import Engine

PLACE = Path("results/speeds")
BATCH_SIZES, LENGTHS = (1, 8), (128,)
OPTIONS = ("against", "engines", "batch_sizes", "lengths", "threads", "warmup", "iterations", "output", "busy")
WITHOUT_A_NAME = re.compile(r"model(\.onnx)?|(seed|checkpoint-)\d+")  # folders and files that many models have
OF_A_RUN = ("task", "recipe", "seed", "method", "sparsity")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is timed by hand to the command's arguments."""
    group = parser.add_argument_group("by hand", "time any models: no experiment is needed")
    option = group.add_argument
    option("models", nargs="*", type=Path, metavar="MODEL", help="folder of a Hugging Face model, or an ONNX file")
    option("--against", type=Path, metavar="MODEL", help="what speed-ups are over, timed too; the first by default")
    option(
        "--engines",
        nargs="+",
        metavar="NAME",
        help="those on this CPU without an environment of their own by default",
    )
    option("--batch-sizes", nargs="+", type=int, metavar="N", help=f"{' '.join(map(str, BATCH_SIZES))} by default")
    option("--lengths", nargs="+", type=int, metavar="N", help="tokens of a sequence; 128 by default")
    option("--threads", nargs="+", type=int, metavar="N", help="one for each core by default")
    for name in ("warmup", "iterations"):
        field = Benchmark.model_fields[name]
        option(f"--{name}", type=int, metavar="N", help=f"{field.description}; {field.default} by default")
    option("--output", type=Path, metavar="FOLDER", help=f"for table and picture; one below {PLACE} by default")
    option("--busy", action="store_true", default=None, help="time although other work is running, and say so")


@dataclass(frozen=True)
class _Chosen:
    """What is asked for.

    Attributes:
        models: the path that each was named by, and where it is; by names that tell them apart.
        base: name of the model that speed-ups are over.
    """

    models: dict[str, tuple[Path, Path]]
    base: str
    engines: dict[str, type[Engine]]
    scenarios: tuple[Scenario, ...]
    settings: Benchmark
    output: Path


def run(arguments: argparse.Namespace) -> str | None:
    """Time the models that are named; None if none is.

    Writes a table (CSV), a picture (PNG) and all that was measured, with the machine (JSON).

    Raises:
        UserError: a mistake in the arguments, no such model, one that cannot be exported or run, a machine that does
            something else, or no engine that could time anything.
    """
    options = {name: getattr(arguments, name) for name in OPTIONS}
    if not arguments.models:
        if given := [name for name, value in options.items() if value is not None]:
            raise UserError(f"--{given[0].replace('_', '-')} is for models that are named: name a folder or ONNX file")
        return None
    if given := [name for name in OF_A_RUN if getattr(arguments, name) is not None]:
        raise UserError(f"--{given[0]} names a run of an experiment, and {arguments.models[0]} a model: give one alone")
    chosen, notes = _chosen(arguments.models, options)
    load = Load.now()
    if load.is_busy and not options["busy"]:
        raise UserError(
            f"this machine does something else: {load}. With more than {100 * BUSY:g} % in use, timings would be of "
            "both. Wait until the other work has ended, or say --busy: then the result says so too"
        )
    from obert.records.provenance import environment

    machine = environment()
    found = _compared(chosen)
    found.notes[:0] = notes
    if not found.timings:
        raise UserError("no engine could time anything. " + " ".join(found.notes))
    from obert.report.speeds import Measured

    measured = Measured(machine, load, found)
    written = measured.write(chosen.output)
    return f"{measured.text()}\nwritten: {', '.join(map(str, written))}"


def _chosen(paths: Sequence[Path], options: dict[str, Any]) -> tuple[_Chosen, list[str]]:
    """The options checked, with notes on engines that do not run here."""
    from obert.deployment.given import look_at
    from obert.deployment.latency import require_cores

    settings = {name: options[name] for name in ("warmup", "iterations") if options[name] is not None}
    settings = validate(Benchmark, settings, "the command line")
    scenarios = tuple(
        validate(Scenario, {"batch_size": size, "sequence_length": length, "threads": threads}, "the command line")
        for threads, length, size in itertools.product(
            options["threads"] or [granted_cores()],
            options["lengths"] or LENGTHS,
            options["batch_sizes"] or BATCH_SIZES,
        )
    )
    for scenario in scenarios:
        require_cores(scenario.threads, "--threads")
    engines, notes = _engines(options["engines"])
    output = options["output"] or PLACE / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    check_folder(output, "--output")
    against = options["against"]
    places: dict[Path, Path] = {}
    for path in (*paths, *([against] if against else [])):
        places.setdefault(path.resolve(), path)
    names = dict(zip(places, _names(list(places.values())), strict=True))
    models = {names[place]: (path, look_at(path, scenarios)) for place, path in places.items()}
    base = names[(against or paths[0]).resolve()]
    return _Chosen(models, base, engines, scenarios, settings, output), notes


def _engines(asked: Sequence[str] | None) -> tuple[dict[str, type[Engine]], list[str]]:
    """The engines that run here, by name, and why others do not."""
    for name in asked or ():
        registry.require("engines", name, "--engines")
    found = {name: registry.load("engines", name) for name in asked or registry.names("engines")}
    if not asked:  # what has an environment or hardware of its own is timed where it is named
        found = {name: one for name, one in found.items() if one.environment is None and one.hardware is None}
    reasons = {name: one.unavailable_reason() for name, one in found.items()}
    notes = [f"{name} was not timed. {reason}." for name, reason in reasons.items() if reason]
    if len(notes) == len(found):
        raise UserError(f"no engine runs here. {' '.join(notes)}")
    return {name: one for name, one in found.items() if not reasons[name]}, notes


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as they must be to say something and to tell the models apart."""
    parts = [path.absolute().parts[1:] for path in paths]
    needed = [1 + len(list(itertools.takewhile(WITHOUT_A_NAME.fullmatch, reversed(part)))) for part in parts]
    choices = (
        ["/".join(part[-count - more :]) for part, count in zip(parts, needed, strict=True)]
        for more in range(max(map(len, parts)) + 1)
    )
    return next(ends for ends in choices if len(set(ends)) == len(ends))


def _compared(chosen: _Chosen) -> Comparison:
    """The models timed in all engines."""
    from obert.deployment.comparison import Comparison
    from obert.deployment.given import prepare

    with tempfile.TemporaryDirectory() as scratch:
        models = {}
        for index, (name, (path, place)) in enumerate(chosen.models.items()):
            _tell(f"preparing {name}")
            folder = Path(scratch) / str(index)
            folder.mkdir()
            models[name] = prepare(path, place, folder, chosen.scenarios)
        found = Comparison(models, chosen.base, chosen.settings.warmup, chosen.settings.iterations)
        for name, engine_class in chosen.engines.items():
            found.add(name, engine_class, chosen.scenarios, _tell)
    return found


def _tell(text: str) -> None:
    say(text, sys.stderr)
