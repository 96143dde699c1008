"""One configuration with a tiny random model of every architecture, and labelled sentences in CSV.

python tests/architectures/one_configuration.py configs/architectures.yaml data/architectures
snakemake --cores 2 --configfile configs/architectures.yaml
"""

import csv
import random
import sys
from pathlib import Path

import yaml
from models import NAMES, make

GOOD, BAD = ("warm", "lovely", "clever", "bright"), ("dull", "clumsy", "empty", "flat")
THINGS = ("film", "book", "song", "play", "story", "show", "scene", "cast")
ROWS = 240


def write_reviews(path: Path) -> None:
    """A CSV of sentences with the words `praise` and `blame` as labels, under column names of its own."""
    choose = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "verdict", "written"])
        for number in range(ROWS):
            words, verdict = ((GOOD, "praise"), (BAD, "blame"))[number % 2]
            thing, first, second = choose.choice(THINGS), choose.choice(words), choose.choice(words)
            text = f"The {thing}, number {number}, is {first} and {second}."
            writer.writerow([text, verdict, f"2026-01-{number % 28 + 1:02d}"])


def configuration(name: str, folder: Path) -> dict:
    """An experiment over all architectures; writes its models and its data."""
    folder.mkdir(parents=True, exist_ok=True)
    write_reviews(folder / "reviews.csv")
    reviews = {
        "kind": "classification", "source": str(folder / "reviews.csv"), "text": "review", "label": "verdict",
        "max_length": 32,
    }  # fmt: skip
    tasks = {f"reviews_{architecture}": reviews for architecture in NAMES}
    models = {
        f"reviews_{architecture}": {"source": str(make(architecture, folder / architecture))} for architecture in NAMES
    }
    return {
        "name": name,
        "description": "Every architecture with own data, on tiny random models. Its scores mean nothing.",
        "model": models["reviews_bert"],
        "models": models,
        "tasks": tasks,
        "teacher": "smoke_finetune",
        "downstream": [
            {"recipes": ["smoke_one_shot"], "methods": ["obert"], "sparsities": [0.8]},
            {"recipes": ["smoke_gradual"], "methods": ["magnitude", "obert"], "sparsities": [0.8]},
        ],
        "quantize": [{"recipe": "smoke_quantize", "models": ["smoke_gradual"], "methods": ["obert"]}],
        "benchmark": {
            "recipes": ["smoke_gradual", "smoke_quantize"], "methods": ["obert"],
            "engines": ["pytorch", "onnxruntime", "openvino"],
            "batch_size": 2, "sequence_length": 16, "threads": 1, "warmup": 1, "iterations": 5,
        },
        "tracking_uri": f"sqlite:///results/tracking/{name}/mlflow.db",
    }  # fmt: skip


if __name__ == "__main__":
    target, data = Path(sys.argv[1]), Path(sys.argv[2])
    target.write_text(yaml.safe_dump(configuration(target.stem, data), sort_keys=False), encoding="utf-8")
