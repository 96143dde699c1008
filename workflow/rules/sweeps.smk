"""Sweeps: one rule each, on all cores; it ends in a recipe."""

from functools import cache

from obert.experiment.recipes import SWEEPS
from obert.experiment.yaml_file import read_yaml
from obert.sweeps.search import load_sweep


@cache
def loaded(name):
    """A sweep, read and checked when a job of it is planned."""
    try:
        return load_sweep(SWEEPS / f"{name}.yaml")
    except UserError as error:
        raise WorkflowError(str(error)) from None


def swept(name, file):
    """A file that a sweep leaves."""
    return (folders.sweep_folder(name) / file).as_posix()


def upstream_of(name):
    """Records of the upstream models that a sweep of this experiment starts from."""

    def of(wildcards):
        if loaded(name).original.experiment.name != EXPERIMENT.name:
            return []
        return [record_of(run) for run in loaded(name).upstream_sources]

    return of


def identity_of(name):
    """Hash of all that decides a sweep's trials."""
    return lambda wildcards: loaded(name).identity


def workers_of(name):
    """As many workers as the cores allow; one on a GPU, which they would share."""
    return lambda wildcards, threads: 1 if GPUS else max(threads // loaded(name).original.experiment.threads, 1)


def memory_of(name):
    """What its workers take together, each as much as the largest run of a trial."""

    def of(wildcards, threads, attempt):
        asks = Asks(loaded(name).original.experiment, on_gpu=GPUS > 0)
        largest = max(asks[run].again(attempt).memory_mb for run in loaded(name).runs)
        return workers_of(name)(wildcards, threads) * largest

    return of


for file in sorted(SWEEPS.glob("*.yaml")):

    rule:
        name:
            f"sweep_{file.stem}"
        input:
            config=file.as_posix(),
            upstream=upstream_of(file.stem),
        output:
            trials=ensure(swept(file.stem, "trials.csv"), non_empty=True),
            recipe=swept(file.stem, f"{read_yaml(file).get('recipe')}.yaml"),
        log:
            f"results/logs/sweeps/{file.stem}.log",
        benchmark:
            f"results/benchmarks/sweeps/{file.stem}.jsonl"
        conda:
            "../envs/obert.yaml"
        threads: CORES
        resources:
            gpu=min(GPUS, 1),
            mem_mb=memory_of(file.stem),
            runtime=1440,
            # No parameter: that would run a sweep again where there are other cores.
            workers=workers_of(file.stem),
        params:
            identity=identity_of(file.stem),
            code=code_hash(sweeps="runner"),
        # As in runs.smk: the recipe is written when the trials are.
        shell:
            "python -m obert sweep --config {input.config:q} --workers {resources.workers} > {log} 2>&1"
            " || {{ test -s {output.recipe} && echo 'The sweep is complete, though not all after it: see {log}' >&2; }}"
