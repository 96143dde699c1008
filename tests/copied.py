"""Copies of the project that a test may change and run things in."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "configs", "obert", "profiles", "workflow", "tests/data")


def copy_project(folder: Path, *more: str) -> Path:
    """Copy what runs need, and further parts, to a folder, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in (*PARTS, *more):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder
