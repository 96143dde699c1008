"""The experiment, validated; the names of its files; what rules share."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from snakemake.exceptions import WorkflowError

from obert.commands import resources
from obert.commands.tables import names as table_names
from obert.experiment import folders
from obert.experiment.plan import Plan
from obert.experiment.resources import Asks, cpus_of
from obert.foundation.accelerators import gpu_count
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash
from obert.foundation.nodes import ANY, SLURM, THIS, slurm_nodes, this_machine
from obert.foundation.passwords import masked
from obert.foundation.registry import PACKAGE
from obert.stages import stages

DEFAULT_CONFIG = "configs/default.yaml"


# Snakemake has no public way to ask for --configfile, --config, --cores and the scheduler's resources. Whether these
# attributes of `workflow` are there shows in every dry run, and tests/test_workflow.py holds what is made of them.
def experiment_file():
    """The one file that describes the experiment: `--configfile`, or the default."""
    if workflow.config_settings.config:
        raise WorkflowError(
            f"--config {dict(workflow.config_settings.config)} is not supported, as a result could not be traced to a "
            "file: write the change to a copy of the configuration and pass it with --configfile."
        )
    files = list(workflow.config_settings.configfiles)
    if len(files) > 1:
        raise WorkflowError(f"one --configfile is one experiment; found {', '.join(map(str, files))}")
    path = Path(files[0] if files else DEFAULT_CONFIG)
    # Relative where it can be: the path is a parameter of every rule, and a moved checkout must not rerun them.
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.as_posix()


def given(resources, name):
    """A resource that a profile or the command line gives, as it stands there; None if they do not name it."""
    found = resources.get(name) if resources else None
    return None if found is None else found.raw


CONFIG = experiment_file()
try:
    PLAN = Plan.load(CONFIG)
    TABLE_NAMES = table_names(PLAN)
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT, STAGES = PLAN.experiment, stages()
PLANNED = {run.key.path.as_posix(): run for run in PLAN}
RUNS = folders.runs_folder(EXPERIMENT).as_posix()
TABLES = folders.tables_folder(EXPERIMENT).as_posix()
LOGS = f"results/logs/{EXPERIMENT.name}"
TIMES = f"results/benchmarks/{EXPERIMENT.name}"
RUN = "{task}/{recipe}/{variant}/seed{seed}"

# Jobs go to other machines where `--jobs` is given and `--cores` is not; a dry run sets the latter to 1. In a job there,
# the rules are to ask for the same.
ON_CLUSTER = workflow.remote_exec or (
    workflow.resource_settings.nodes is not None and workflow.resource_settings.cores in (None, 1)
)
PARTITION, NODES = given(workflow.resource_settings.default_resources, "slurm_partition"), ()
if ON_CLUSTER and workflow.is_main_process:
    try:
        NODES = slurm_nodes(PARTITION)
    except UserError as error:
        if PARTITION:
            raise WorkflowError(str(error)) from None
GPUS = max(node.gpus for node in NODES) if NODES else gpu_count()
CORES = workflow.resource_settings.cores or 1
if ON_CLUSTER:  # of a sweep's job; in the job itself, where the cores are those of the node, as many
    CORES = min(8, max((node.cpus for node in NODES), default=CORES if workflow.remote_exec else 8))
ASKS = Asks(EXPERIMENT, on_gpu=GPUS > 0)

# Two jobs that ask for a GPU must not share one because nobody said how many there are. A cluster sees to that itself.
if not ON_CLUSTER:
    workflow.global_resources.setdefault("gpu", GPUS)

# The environment that runs Snakemake runs the stages, activated or not.
shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH" TOKENIZERS_PARALLELISM=false; ')


wildcard_constraints:
    task="[a-z0-9_]+",
    recipe="[a-z0-9_]+(@[a-z0-9_]+)*",
    variant=r"dense|[a-z0-9_]+-[0-9.]+",
    seed="[0-9]+",


def prepare():
    """Fetch assets, check the experiment and create the tracking database before the first job.

    No rule: other rules' inputs would have to be `ancient`, and Snakemake (9.27) plans no job behind an ancient input
    whose own job is to run, so that after a change of the configuration it would run that job and stop.
    """
    command = [sys.executable, "-m", "obert", "prepare", "--config", CONFIG]
    if subprocess.run(command).returncode:
        raise WorkflowError("nothing was run: see the message above")
    where, machines = (SLURM if NODES else ANY, NODES) if ON_CLUSTER else (THIS, (this_machine(),))
    try:
        print(resources.fit({run: asked(run) for run in PLAN}, where, machines), file=sys.stderr)
    except UserError as error:
        raise WorkflowError(f"nothing was run: {error}") from None


def asked(run):
    """What a run's job asks for, with the profile's `set-resources` and `set-threads`."""
    settings, name = workflow.resource_settings, run.stage.name
    memory, cpus = given(settings.overwrite_resources.get(name), "mem_mb"), given(settings.overwrite_threads, name)
    changes = {"memory_mb": memory, "cpus": cpus}
    return replace(ASKS[run], **{field: value for field, value in changes.items() if isinstance(value, int)})


def planned(stage, wildcards):
    """The run that a rule's wildcards name."""
    path = f"{stage}/{wildcards.task}/{wildcards.recipe}/{wildcards.variant}/seed{wildcards.seed}"
    if path not in PLANNED:
        raise WorkflowError(f"{CONFIG} has no run {path}")
    return PLANNED[path]


def asked_of(stage, field):
    """What a run's job asks for of one resource; more at each attempt."""
    return lambda wildcards, attempt: getattr(ASKS[planned(stage, wildcards)].again(attempt), field)


def threads_of(stage):
    """What measures time takes every core, so it runs alone; on a cluster, the CPUs that it is to be measured with."""
    if stage.exclusive and not ON_CLUSTER:
        return CORES
    return lambda wildcards: cpus_of(planned(stage.name, wildcards))


def arguments_of(stage):
    """Command-line arguments that name the run."""
    return lambda wildcards: planned(stage, wildcards).key.arguments


def specification_of(stage):
    """Hash of what decides the run's result: a change of it, and of nothing else, reruns it."""
    return lambda wildcards: planned(stage, wildcards).specification_hash


def code_of(stage):
    """Hash of the code that makes a run."""
    return lambda wildcards: planned(stage, wildcards).code_hash


def outputs_of(stage):
    """What a stage's runs leave: the record, and files and folders beside it."""
    folder = f"{RUNS}/{stage.name}/{RUN}"
    return {
        "record": ensure(f"{folder}/metrics.json", non_empty=True),
        **{name: directory(f"{folder}/{path}") for name, path in stage.folders.items()},
        **{name: f"{folder}/{path}" for name, path in stage.files.items()},
    }


def record_of(run):
    """The record of a run."""
    return (run.folder / "metrics.json").as_posix()


def source_records(stage):
    """The records that a run is made from."""
    return lambda wildcards: [record_of(source) for source in planned(stage, wildcards).made_from]


RECORDS = [record_of(run) for run in PLAN]
