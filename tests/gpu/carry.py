"""Make what is carried to a GPU machine without a network: weights in half precision, compressed data, wheels.

    python -m obert assets --name minilm
    python tests/gpu/carry.py --squad FOLDER

FOLDER holds SQuAD v1.1 as train.jsonl.zst and validation.jsonl.zst (or .jsonl), in the columns of the Hugging Face Hub.
Everything goes to results/gpu/carried, which git ignores; its size is printed, and must be below the machine's limit.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from places import CARRIED, ROOT
from safetensors.torch import load_file, save_file

from obert.tasks.squad import Squad

PACKAGES = (
    "datasets", "evaluate", "dill", "multiprocess", "pydantic", "pydantic-core", "annotated-types",
    "typing-inspection", "pytest-socket",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def carry_weights(source: Path, target: Path) -> None:
    """A model's folder with its weights in float16."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, target)
    weights = load_file(source / "model.safetensors")
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    if not all(torch.isfinite(value).all() for value in halves.values()):
        raise ValueError(f"{source}: weights beyond float16's range")
    save_file(halves, target / "model.safetensors", metadata={"format": "pt"})


def carry_data(source: Path, target: Path) -> None:
    """The splits as Parquet: paragraphs that questions share are in it once."""
    target.mkdir(parents=True, exist_ok=True)
    for name, split in Squad(source=str(source)).read().items():
        table = pyarrow.Table.from_pylist(split.to_list())
        pyarrow.parquet.write_table(table, target / f"{name}.parquet", compression="zstd", compression_level=19)


def carry_wheels(target: Path, python: str) -> None:
    """Wheels of what the machine lacks, in the versions of this environment's pins."""
    shutil.rmtree(target, ignore_errors=True)
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    pinned = {line.partition("==")[0].lower().replace("_", "-"): line for line in pins}
    core = pinned_requirement("pydantic", "pydantic-core")
    wanted = [core if name == "pydantic-core" else pinned.get(name, name) for name in PACKAGES]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python, "--dest", str(target)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *wanted], check=True)


def pinned_requirement(package: str, of: str) -> str:
    """The pinned requirement on one package that another's metadata states."""
    from importlib.metadata import requires

    return next(line for line in requires(package) if line.startswith(f"{of}=="))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "results" / "assets" / "minilm")
    parser.add_argument("--squad", type=Path, required=True)
    parser.add_argument("--python", default="3.12", help="the machine's")
    parser.add_argument("--limit", type=float, default=64, help="MiB that may travel")
    arguments = parser.parse_args()
    carry_weights(arguments.model, CARRIED / "minilm")
    carry_data(arguments.squad, CARRIED / "squad")
    carry_wheels(CARRIED / "wheels", arguments.python)
    size = sum(path.stat().st_size for path in CARRIED.rglob("*") if path.is_file()) / 2**20
    print(f"{CARRIED}: {size:.1f} MiB")
    if size > arguments.limit:
        sys.exit(f"more than {arguments.limit:g} MiB")


if __name__ == "__main__":
    main()
