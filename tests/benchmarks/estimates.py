"""How far the estimates of `obert plan` are from what runs took: each finished run is estimated from others.

    python tests/benchmarks/estimates.py --config configs/how_to_prune_small.yaml

First from all others, then without those of the same recipe and target, then without those of the same recipe. Printed
is the ratio of the estimate to what the run took, by what the estimate goes by. Nothing is run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tabulate import tabulate

from obert.experiment import folders
from obert.experiment.estimates import Estimates
from obert.experiment.keys import RunKey
from obert.experiment.plan import Plan
from obert.records.record import FILE_NAME

COLUMNS = ("left out", "goes by", "runs", "median", "lowest", "highest")


def _recipe(key: RunKey) -> tuple:
    return (key.stage, key.task, key.recipe, key.method)


LEFT_OUT: dict[str, Callable[[RunKey], object]] = {
    "the run": lambda key: key,
    "its recipe and target": lambda key: (*_recipe(key), key.sparsity),
    "its recipe": _recipe,
}


@contextmanager
def without(records: set[Path]) -> Iterator[None]:
    """A block in which some records are not there."""
    real = folders.RESULTS.absolute()
    with tempfile.TemporaryDirectory() as folder:
        for path in (real / "runs").glob(f"*/*/*/*/*/*/{FILE_NAME}"):
            if path not in records:
                link = Path(folder) / path.relative_to(real)
                link.parent.mkdir(parents=True)
                link.symlink_to(path)
        for name in ("benchmarks", "logs"):
            (Path(folder) / name).symlink_to(real / name)
        given, folders.RESULTS = folders.RESULTS, Path(folder)
        try:
            yield
        finally:
            folders.RESULTS = given


def ratios(plan: Plan, alike: Callable[[RunKey], object]) -> dict[str, list[float]]:
    """Estimates over what runs took, by what they go by: each from those that are not alike."""
    known = Estimates(plan, on_gpu=False)
    costs = {run: cost for run in plan if (cost := known.cost_of(run)) is not None}
    found: dict[str, list[float]] = defaultdict(list)
    for run, cost in costs.items():
        with without({(o.folder / FILE_NAME).absolute() for o in costs if alike(o.key) == alike(run.key)}):
            estimate = Estimates(plan, on_gpu=False)[run]
        if estimate is not None:
            found[estimate.basis].append(estimate.seconds / cost.seconds)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    plan = Plan.load(parser.parse_args(arguments).config)
    rows = [
        (name, basis, len(values), *(f"{of(values):.2f}" for of in (median, min, max)))
        for name, alike in LEFT_OUT.items()
        for basis, values in ratios(plan, alike).items()
    ]
    print(tabulate(rows, headers=COLUMNS, disable_numparse=True))


if __name__ == "__main__":
    main()
