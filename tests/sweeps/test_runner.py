"""Sweeps over the stages themselves, on the smoke model: what trials see, share, keep and end in."""

import itertools
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from planned import make, results_in

from obert.experiment import folders, recipes
from obert.experiment.recipes import load_recipe
from obert.foundation.errors import UserError
from obert.pruning.shared import block_fisher
from obert.records.record import read_record, read_records
from obert.stages import stage
from obert.sweeps import runner
from obert.sweeps.search import load_sweep
from obert.tracking.store import TRIALS

SMOKE = Path("configs/sweeps/smoke.yaml")
DOWNSTREAM = type(stage("downstream"))
KINDS = (".csv", ".yaml", ".png", ".svg")
M, DAMPENING = "methods.obert.num_gradients", "methods.obert.dampening"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder for results of the module's own, which the smoke sweep fills once."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def sweep_file(root, monkeypatch, results):
    """Writes a sweep of the smoke experiment, tracked in a database of the test's own."""
    results_in(results, monkeypatch)
    experiment = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    experiment["tracking_uri"] = f"sqlite:///{results}/mlflow.db"
    (results / "smoke.yaml").write_text(yaml.safe_dump(experiment))

    def write(**changes) -> Path:
        content = yaml.safe_load(SMOKE.read_text(encoding="utf-8")) | {"experiment": f"{results}/smoke.yaml"} | changes
        path = results / f"{content['name']}_sweep.yaml"
        kept = {key: value for key, value in content.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture
def swept(sweep_file, monkeypatch):
    """The smoke sweep after it has run, and how many Fishers it accumulated, if it ran just now."""
    path = sweep_file()
    search = load_sweep(path)
    if not (search.folder / TRIALS).is_file():
        accumulate = block_fisher.BlockFisherMethod.estimate
        with monkeypatch.context() as patch:
            counted = search.folder.parent / "accumulations"

            def count(self, *arguments):
                with counted.open("a") as file:
                    file.write("x")
                return accumulate(self, *arguments)

            patch.setattr(block_fisher.BlockFisherMethod, "estimate", count)
            runner.run(path)
    return path, search


def trials_of(search):
    return pd.read_csv(search.folder / TRIALS)


def run_records(search):
    """Records of the trials' runs, by folder."""
    found = {}
    for values in search.points:
        for run in itertools.chain(*search.trial(values)):
            found[run.folder] = read_record(run.folder / "metrics.json")
    return found


def ids(folder):
    return [json.loads(line)["id"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_grid_has_each_point_once_and_the_records_scores(swept):
    _, search = swept
    trials = trials_of(search)
    assert sorted(zip(trials[M], trials[DAMPENING], trials["sparsity"], strict=True)) == sorted(
        (m, dampening, sparsity) for m in (16, 32) for dampening in (1e-3, 1e-7) for sparsity in (0.5, 0.8)
    )
    for values in search.points:
        own = trials[(trials[M] == values[M]) & (trials[DAMPENING] == values[DAMPENING])]
        assert own["objective"].iloc[0] == pytest.approx(own["score"].mean())
        for run in itertools.chain(*search.trial(values)):
            record = read_record(run.folder / "metrics.json")
            (row,) = own[own["sparsity"] == run.key.sparsity].to_dict("records")
            assert (row["score"], row["count"]) == pytest.approx(
                (record.metrics["accuracy"].value, record.metrics["accuracy"].count)
            )
            assert record.spec["method"]["dampening"] == values[DAMPENING]
    assert (search.folder / "history.png").is_file() and (search.folder / "history.svg").is_file()


def test_trials_are_judged_by_the_same_held_out_training_examples(swept):
    _, search = swept
    experiment = search.original.experiment
    splits = search.original.definitions.task("movie_reviews").load()
    training, validation = set(splits["train"]["id"]), set(splits["validation"]["id"])
    folders = list(run_records(search))
    held_out = ids(folders[0])
    assert set(held_out) <= training and not set(held_out) & validation
    assert 0.08 < len(held_out) / len(training) < 0.35
    assert all(ids(folder) == held_out for folder in folders)
    (teacher,) = search.sources
    folder = teacher.folder
    assert ids(folder) == held_out
    for record in (read_record(folder / "metrics.json"), *run_records(search).values()):
        assert record.data["splits"] == {"train": len(training) - len(held_out), "validation": len(held_out)}
        assert record.key.seed == 100 and record.key.seed not in experiment.seeds


def test_a_family_shares_one_accumulation_and_is_pruned_as_each_alone(swept):
    _, search = swept
    assert (search.folder.parent / "accumulations").read_text() == "xx"  # two numbers of gradients
    for values in (search.points[0], search.points[-1]):
        for run in itertools.chain(*search.trial(values)):
            shared = read_record(run.folder / "metrics.json")
            alone = make(run)
            assert alone.model["weights_sha256"] == shared.model["weights_sha256"]
            assert alone.metrics == shared.metrics


def test_models_are_not_kept(swept):
    _, search = swept
    for folder, record in run_records(search).items():
        if record.costs["gradient_evaluations"] == 0:  # but for those that the test above has made again
            assert not (folder / "model").exists()


def test_it_ends_in_the_best_trials_recipe(swept, tmp_path, monkeypatch):
    _, search = swept
    written = search.folder / "smoke_one_shot_swept.yaml"
    content = yaml.safe_load(written.read_text(encoding="utf-8"))
    trials = trials_of(search)
    best = trials.loc[trials["objective"].idxmax()]
    assert content["extends"] == "smoke_one_shot"
    assert content["methods"] == {"obert": {"num_gradients": int(best[M]), "dampening": best[DAMPENING]}}
    for part in ("sweep smoke", "best of 4 trials", "held out", "accuracy on movie_reviews", "50 %, 80 %", "seed 100"):
        assert part in content["source"]
    assert f"{best['objective']:.2f}" not in content["source"]
    shutil.copytree(recipes.RECIPES, tmp_path / "recipes")
    shutil.copy(written, tmp_path / "recipes")  # how a user adopts it
    monkeypatch.setattr("obert.experiment.recipes.RECIPES", tmp_path / "recipes")
    adopted, base = load_recipe("smoke_one_shot_swept"), load_recipe("smoke_one_shot")
    assert adopted.methods["obert"] == base.methods["obert"] | content["methods"]["obert"]


def test_run_again_it_makes_nothing_and_writes_the_same(swept, monkeypatch):
    path, search = swept

    def written():
        return {file.name: file.read_bytes() for file in search.folder.glob("*.*") if file.suffix in KINDS}

    before = written()

    def never(self, run):
        raise AssertionError(f"{run.key} is run again")

    monkeypatch.setattr(DOWNSTREAM, "run", never)
    assert runner.run(path) == search.folder / "smoke_one_shot_swept.yaml"
    assert written() == before and len(before) >= 4


def test_a_sweep_is_complete_though_figures_and_mirror_fail(swept, monkeypatch, capsys):
    path, search = swept
    recipe = search.folder / "smoke_one_shot_swept.yaml"
    recipe.unlink()

    def fail(*_):
        raise ImportError("a driver")

    monkeypatch.setattr(runner, "draw_history", fail)
    monkeypatch.setattr(runner.sweeps, "mirror_sweep", fail)
    assert runner.run(path) == recipe
    assert recipe.is_file()
    said = capsys.readouterr().err
    assert "is complete, but without its figures: ImportError: a driver" in said
    assert (
        f"but not in MLflow: ImportError: a driver. Later, `python -m obert track --config {search.sweep.experiment}`"
        in said
    )


def test_a_lost_study_is_made_again_from_the_records(swept, monkeypatch):
    path, search = swept
    before = trials_of(search)
    (search.folder / "journal.log").unlink()
    monkeypatch.setattr(DOWNSTREAM, "run", None)
    runner.run(path)
    pd.testing.assert_frame_equal(trials_of(search).drop(columns="seconds"), before.drop(columns="seconds"))


def test_what_is_added_to_a_grid_is_all_that_is_run(swept, sweep_file, monkeypatch):
    made, run = [], DOWNSTREAM.run
    monkeypatch.setattr(DOWNSTREAM, "run", lambda self, planned: made.append(planned) or run(self, planned))
    space = {M: {"values": [16, 32]}, DAMPENING: {"values": [1e-3, 1e-7, 1e-5]}}
    path = sweep_file(space=space)
    runner.run(path)
    assert len(made) == 2 * 2  # two numbers of gradients, two sparsities
    assert len(trials_of(load_sweep(path))) == 2 * 3 * 2


def test_an_interrupted_trial_goes_on_with_the_runs_it_lacks(sweep_file, monkeypatch):
    path = sweep_file(name="interrupted", space={DAMPENING: {"values": [1e-6]}})
    made, run = [], DOWNSTREAM.run

    def once(self, planned):
        if made:
            raise KeyboardInterrupt
        made.append(planned.key.sparsity)
        return run(self, planned)

    with monkeypatch.context() as patch:
        patch.setattr(DOWNSTREAM, "run", once)
        with pytest.raises(KeyboardInterrupt):
            runner.run(path)
    monkeypatch.setattr(
        DOWNSTREAM, "run", lambda self, planned: made.append(planned.key.sparsity) or run(self, planned)
    )
    runner.run(path)
    assert made == [0.8, 0.5]
    assert trials_of(load_sweep(path))["trial"].tolist() == [1, 1]


def test_trials_are_nested_runs_in_mlflow(swept):
    _, search = swept
    client = MlflowClient(search.original.experiment.tracking_uri)
    experiment = client.get_experiment_by_name("smoke").experiment_id
    (parent,) = client.search_runs([experiment], "tags.stage = 'sweep' and tags.sweep = 'smoke'")
    assert parent.info.run_name == "sweeps/smoke"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {TRIALS, "history.png"}
    nested = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    trials = trials_of(search)
    expected = {
        (str(r[M]), str(r[DAMPENING]), round(r["objective"], 6))
        for r in trials.drop_duplicates("trial").to_dict("records")
    }
    found = {(r.data.params[M], r.data.params[DAMPENING], round(r.data.metrics["objective"], 6)) for r in nested}
    assert found == expected
    assert {(run.data.tags["state"], run.info.status) for run in nested} == {("complete", "FINISHED")}
    assert "movie_reviews/accuracy/0.8/seed100" in nested[0].data.metrics


def test_quantisation_is_swept_on_a_model_that_has_not_seen_the_held_out_examples(sweep_file):
    path = sweep_file(
        name="quantized",
        downstream=None,
        quantize={
            "recipe": "smoke_quantize",
            "models": ["smoke_gradual"],
            "methods": ["obert"],
            "sparsities": [0.8],
            "tasks": ["movie_reviews"],
        },
        space={"training.learning_rate.initial": {"values": [1e-5, 1e-3]}},
        recipe="smoke_quantize_swept",
    )
    recipe = runner.run(path)
    search = load_sweep(path)
    _, model = search.sources
    record = read_record(model.folder / "metrics.json")
    assert (model.stage.name, model.key.recipe) == ("downstream", "smoke_gradual")
    assert record.spec["task"]["held_out"] == 0.2
    assert len(trials_of(search)) == 2
    assert search.recipe(yaml.safe_load(recipe.read_text(encoding="utf-8"))).stage == "quantize"


def test_a_transfer_starts_from_the_experiments_own_upstream_model(sweep_file):
    path = sweep_file(
        name="transferred",
        downstream=None,
        transfer={"recipe": "smoke_transfer", "upstream": ["smoke_masked_language_model"], "tasks": ["movie_reviews"]},
        space={"training.epochs": {"values": [1, 2]}},
        recipe="smoke_transfer_swept",
    )
    search = load_sweep(path)
    (source,) = search.upstream_sources
    with pytest.raises(UserError, match=r"has not been made\. Run `python -m obert upstream_teacher --config"):
        runner.run(path)
    make(source)
    runner.run(path)
    assert trials_of(search)[["training.epochs", "task"]].to_numpy().tolist() == [
        [1, "movie_reviews"],
        [2, "movie_reviews"],
    ]
    for record in read_records(folders.RESULTS / "runs" / "sweeps" / "transferred"):
        assert record.spec["task"].get("held_out") == (None if record.key.task == "mlm" else 0.2)


def test_when_every_trial_fails_the_first_mistake_is_told(sweep_file):
    path = sweep_file(name="greedy", space={M: {"values": [5000, 6000]}})
    with pytest.raises(UserError, match=r"every trial of sweep 'greedy' failed\. .*5000 training features") as caught:
        runner.run(path)
    assert "num_gradients" in str(caught.value) or "number of gradients" in str(caught.value)
