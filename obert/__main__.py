"""The command line: one subcommand a stage, each usable without Snakemake."""

import argparse
import errno
import importlib
import os
import sys
from pathlib import Path

from obert.experiment.checks import load_experiment
from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.plan import find_key
from obert.experiment.reading import validate
from obert.experiment.schema import Benchmark, Experiment
from obert.foundation.errors import UserError
from obert.foundation.registry import require

RUN_STAGES = {
    "upstream_teacher": "train the dense masked language model that upstream runs start from",
    "upstream": "drop layers of the upstream teacher, or prune it",
    "teacher": "fine-tune the dense teacher of a task",
    "transfer": "fine-tune an upstream model on a task, its zeros fixed",
    "downstream": "prune a model on its task, in one shot or gradually",
    "quantize": "quantise a dense or pruned model to 8 bits, with training",
    "export": "export a trained model to ONNX, with parity checked",
    "benchmark": "time an exported model on the CPU against the dense one",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="obert", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, help_text: str, config: str | None = "configs/default.yaml") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        of = "experiment" if config else "sweep"
        sub.add_argument("--config", type=Path, default=config, required=config is None, help=f"{of} file")
        return sub

    command("prepare", "fetch assets, check the experiment, create the tracking database; Snakemake does it first")
    command("check", "check everything that can be checked cheaply before the first training step")
    assets = command("assets", "download and unpack pinned models and data")
    assets.add_argument("--name", help="one asset; all that the experiment needs by default")
    environment = command("environment", "make the virtual environments of engines that need one of their own")
    environment.add_argument("--engine", help="one engine; all that the experiment needs by default")
    for name, help_text in RUN_STAGES.items():
        sub = command(name, help_text)
        sub.add_argument("--task")
        sub.add_argument("--recipe")
        sub.add_argument("--seed", type=int)
        sub.add_argument("--method")
        sub.add_argument("--sparsity", type=float)
        if name == "benchmark":
            _add_by_hand(sub)
    sweep = command("sweep", "search a recipe's best values on held-out training data; ends in a recipe", None)
    sweep.add_argument("--workers", type=int, default=1, help="processes to search with")
    sweep.add_argument("--worker", type=int, default=0, help="this process's number, to join others that run already")
    command("track", "mirror every record into MLflow that is not there yet")
    tables = command("tables", "rebuild tables, figures, leaderboard and report")
    tables.add_argument("--from-mlflow", metavar="URI", help="read the runs from this tracking server or database")
    command("summary", "print the leaderboard and where everything is")
    return parser


def _add_by_hand(benchmark: argparse.ArgumentParser) -> None:
    group = benchmark.add_argument_group("by hand", "time any exported models, the others against the first")
    group.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="files that the export stage wrote")
    group.add_argument("--engines", nargs="+", default=["onnxruntime"])
    for option in ("batch_size", "sequence_length", "threads", "warmup", "iterations"):
        default = Benchmark.model_fields[option].default
        group.add_argument(f"--{option.replace('_', '-')}", type=int, default=default, help=f"{default} by default")


def _run_stage(arguments: argparse.Namespace, experiment: Experiment) -> None:
    """Run one stage for one key, and mirror its record into MLflow."""
    chosen = {name: getattr(arguments, name) for name in ("task", "recipe", "seed", "method", "sparsity")}
    key: RunKey = find_key(experiment, arguments.command, **chosen)
    record = importlib.import_module(f"obert.stages.{arguments.command}").run(experiment, key)
    if record is None:  # one of several processes, of which the first has made the record
        return
    scores = ", ".join(f"{name} {score.value:.2f} (n={score.count})" for name, score in record.metrics.items())
    print(f"{key.path}: {scores}")

    from obert.tracking import mirror as tracking

    try:
        tracking.mirror(record, run_folder(experiment, key), experiment.tracking_uri)
    except UserError as error:  # were it an error, Snakemake would delete a model that took hours; `track` comes later
        print(f"obert {arguments.command}: {error}", file=sys.stderr)


def _fetch_assets(arguments: argparse.Namespace) -> None:
    from obert.commands import assets
    from obert.data.sources import needed_assets

    for name in [arguments.name] if arguments.name else needed_assets(load_experiment(arguments.config)):
        assets.run(name)


def _make_environments(arguments: argparse.Namespace) -> None:
    from obert.commands import environment

    for engine in [arguments.engine] if arguments.engine else environment.needed(load_experiment(arguments.config)):
        environment.run(engine)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "assets":
        _fetch_assets(arguments)
        return
    if arguments.command == "sweep":
        from obert.sweeps import runner as sweep

        print(sweep.run(arguments.config, arguments.worker, arguments.workers))
        return
    if arguments.command == "benchmark" and arguments.models:
        from obert.commands import time_files

        for name in arguments.engines:
            require("engines", name, "--engines")
        chosen = {name: value for name, value in vars(arguments).items() if name in Benchmark.model_fields}
        print(time_files.run(arguments.models, validate(Benchmark, chosen, "the command line")))
        return
    if arguments.command == "environment":
        _make_environments(arguments)
        return
    experiment = load_experiment(arguments.config)
    if arguments.command in RUN_STAGES:
        _run_stage(arguments, experiment)
    elif arguments.command == "check":
        from obert.commands import check

        print(check.run(experiment))
    elif arguments.command == "prepare":
        from obert.commands import prepare

        prepare.run(experiment)
    elif arguments.command == "track":
        from obert.commands import track

        track.run(experiment)
    else:
        from obert.commands import tables

        if arguments.command == "tables":
            print(tables.run(experiment, arguments.config, arguments.from_mlflow))
        else:
            print(tables.summary(experiment))


def main(argv: list[str] | None = None) -> int:
    """Run a command; without one, list them. Returns 0, or 2 after a mistake of the user's, told in one message."""
    arguments = _parser().parse_args((sys.argv[1:] if argv is None else argv) or ["--help"])
    try:
        _run(arguments)
    except UserError as error:
        print(f"obert {arguments.command}: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # torch and safetensors tell of a full disk in exceptions of their own
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        print(
            f"obert {arguments.command}: the disk is full: {error}. Free some space and run the same command again; "
            "finished runs and complete checkpoints are kept.",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
