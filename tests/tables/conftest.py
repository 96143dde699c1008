import pytest

from obert.experiment.keys import RunKey
from obert.records.record import Score
from obert.tables import Results
from obert.tables._published import load_published
from tables.examples import DENSE_RECIPE, origins_of_exports, record, trials, write_run

TASK = "movie_reviews"
# The examples that each run judges right (100) or wrong (0): four, so that means are easy to derive by hand.
SCORES = {
    ("obert", 0): (100, 100, 100, 100),
    ("obert", 1): (100, 100, 100, 0),
    ("magnitude", 0): (100, 100, 0, 100),
    ("magnitude", 1): (100, 100, 100, 0),
    ("movement", 0): (0, 0, 0, 0),
    ("movement", 1): (0, 0, 0, 0),
}


def key(method, sparsity, seed=0, recipe="gradual", stage="downstream", task=TASK):
    return RunKey(stage, task, recipe, seed, method, sparsity)


@pytest.fixture
def make_results(tmp_path, root):
    """Results of hand-made records: a list of (record, scores, steps). Exports and timings know their models."""

    def make(runs, planned=(), config="configs/example.yaml", origins=(), **more):
        for made, scores, steps in runs:
            named = None if scores is None else dict(zip("abcd", scores, strict=True))
            write_run(tmp_path / "runs", made, named, steps)
        records = tuple(made for made, _, _ in runs)
        planned = (*dict.fromkeys([*(r.key for r in records), *planned]),)
        about = ("example", "An example.", config)
        origins = origins_of_exports(planned) | dict(origins)
        return Results(*about, records, planned, load_published(), tmp_path / "runs", origins=origins, **more)

    return make


@pytest.fixture
def example_runs():
    """A dense teacher at 80 % where chance is 50, three methods with two seeds at 90 %, one planned group missing, and
    one model timed."""
    runs = [(record("teacher", 80.0, details={"majority_rate": 50.0}), (100, 100, 100, 0), 20)]
    for (method, seed), scores in SCORES.items():
        made = record("downstream", sum(scores) / 4, method=method, sparsity=0.9, seed=seed)
        runs.append((made, scores, 20))
    chosen = {"method": "obert", "sparsity": 0.9}
    size = {"model_size_gzip_mb": Score(value=12.5, count=1)}
    speed = {"pytorch_throughput": Score(value=200.0, count=20), "pytorch_speedup": Score(value=2.5, count=20)}
    slow = {"pytorch_throughput": Score(value=80.0, count=20)}
    runs.append((record("export", metrics=size, **chosen), None, 0))
    runs.append((record("benchmark", metrics=speed, **chosen), None, 0))
    runs.append((record("benchmark", metrics=slow, recipe=DENSE_RECIPE), None, 0))
    return runs


@pytest.fixture
def results(make_results, example_runs):
    planned = [key("obert", 0.97), key("obert", 0.97, seed=1)]
    return make_results(example_runs, planned=planned, sweeps={"ablation": trials()})


@pytest.fixture
def two_tasks(make_results, example_runs):
    """The same with a second task, for two of the methods and one seed."""
    pruned = [
        (record("downstream", 50.0, task="city_qa", method=m, sparsity=0.9), (100, 0, 100, 0), 20)
        for m in ("magnitude", "obert")
    ]
    runs = [*example_runs, (record("teacher", 75.0, task="city_qa"), (100, 100, 100, 0), 20), *pruned]
    return make_results(runs, sweeps={"ablation": trials()})


@pytest.fixture
def no_results(make_results):
    return make_results([], planned=[RunKey("teacher", TASK, DENSE_RECIPE, 0), key("obert", 0.9)])
