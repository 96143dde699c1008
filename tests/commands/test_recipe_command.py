"""What `obert recipe` writes, refuses and estimates, on a tiny model."""

from pathlib import Path

import pytest
import yaml
from planned import make, results_in

from obert.commands.cli import main
from obert.experiment.plan import Plan
from obert.experiment.recipes import load_recipe
from obert.training.pace import Pace

OURS = {
    "description": "In the place of this project's own values.",
    "stage": "downstream",
    "training": {"batch_size": 4, "learning_rate": {"initial": 1.0}},
    "scaling": {"unit_epochs": 7, "cycles": {"density": 0.5}, "initial_share": 0.5, "events_per_cycle": 4},
    "methods": {"obert": {"gradients": "per_example", "gradient_batch_size": 8}},
}
TASK = "movie_reviews"  # 96 examples; in batches of 16, six steps an epoch


@pytest.fixture
def config(root, tmp_path, monkeypatch):
    """Writes the smoke experiment with a folder for recipes, and other values of its own; returns the file."""
    results_in(tmp_path / "results", monkeypatch)
    monkeypatch.setattr("obert.experiment.guidelines.OURS", "ours")
    folder = tmp_path / "own/recipes"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text(yaml.safe_dump(OURS))

    def write(**changes):
        content = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
        for section in ("upstream", "quantize", "benchmark"):
            del content[section]
        content |= {"extensions": str(tmp_path / "own"), "downstream": [], **changes}
        path = tmp_path / "edited.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


@pytest.fixture
def paced(monkeypatch):
    """Steps of 6 seconds and events of 60, as timed."""
    monkeypatch.setattr("obert.compression.draft.measure", lambda *_: Pace(6.0, 60.0, 4, 0))


def recipe(config, *arguments):
    return main(["recipe", "--config", config, "--task", TASK, *arguments])


def block(name, method, sparsity):
    return {"recipes": [name], "methods": [method], "tasks": [TASK], "sparsities": [sparsity]}


def test_the_recipe_is_written_and_planned(config, paced, capsys, tmp_path):
    """At 80 %: 1 + 2.3 cycles, rounded up, each an epoch; pruning from epoch 1 to 3, every quarter of one."""
    assert recipe(config(), "--sparsity", "0.8") == 0
    assert f"{tmp_path}/own/recipes/guidelines_movie_reviews_80.yaml: written" in capsys.readouterr().out
    name = "guidelines_movie_reviews_80"
    plan = Plan.load(config(downstream=[block(name, "obert", 0.8)]))
    (run,) = plan.of_stage("downstream")
    made = run.recipe
    assert made.training.epochs == 4 and made.training.learning_rate.rewind_epochs == (1, 2, 3)
    assert (made.schedule.start_epoch, made.schedule.end_epoch, made.schedule.every_epochs) == (1, 3, 0.25)
    assert made.schedule.initial_sparsity == 0.3, "oBERT's first step for few layers"
    dense, published = plan.teacher(TASK).recipe, load_recipe("obert_10_epochs")
    assert made.training.batch_size == dense.training.batch_size == 16
    assert made.training.learning_rate.initial == dense.training.learning_rate.initial
    assert made.training.learning_rate.final == pytest.approx(dense.training.learning_rate.initial / 10)
    assert made.distillation == published.distillation
    assert made.scope.parts == ("encoder",) and made.start == "pretrained"
    assert run.method.num_gradients == 96, "no more than there are features"
    assert run.method.fisher_block_size == published.methods["obert"]["fisher_block_size"]


def test_every_value_has_a_reason_and_a_source(config, paced, tmp_path):
    assert recipe(config(), "--sparsity", "0.8", "--method", "magnitude", "--name", "mine") == 0
    lines = (tmp_path / "own/recipes/mine.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("stage:"))
    values = [
        i
        for i, line in enumerate(lines)
        if i > start and not line.lstrip().startswith("#") and line.partition(":")[2].strip()
    ]
    assert len(values) > 12
    for i in values:
        above = []
        while lines[i - 1 - len(above)].lstrip().startswith("#"):
            above.append(lines[i - 1 - len(above)])
        assert any(f"# [{source}] " in above[-1] for source in ("dense", "oBERT", "ours")), lines[i]
    assert all(line.startswith(("#", " ", "description", "source", "stage")) for line in lines[: start + 1])
    assert "about 12 minutes: 4 cycles, 24 optimiser steps of 6 s" in " ".join(" ".join(lines).replace("#", "").split())


@pytest.mark.parametrize(
    ("budget", "fits"),
    [
        # With the shortest schedule, 1.5 steps a cycle and an event at the end of each but the last and at the start, 4
        # cycles are 6 steps and 4 events, 276 s; 3 are 204 s, 2 are 138 s, 1 is 72 s. Half of what is left is pruned in
        # each after the first: 3 reach 75 %, 2 reach 50 %.
        (4, "75 % fits into 4 minutes; 80 % takes --minutes 4.6"),
        (2.4, "50 % fits into 2.4 minutes"),
        (1, "No sparsity fits into 1 minutes"),
    ],
)
def test_a_budget_that_is_too_short_is_refused_with_what_would_fit(config, paced, capsys, tmp_path, budget, fits):
    assert recipe(config(), "--sparsity", "0.8", "--minutes", str(budget)) == 2
    assert fits in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "own/recipes").iterdir()] == ["ours.yaml"]


def test_a_budget_that_is_long_enough_is_not_refused(config, paced, capsys):
    assert recipe(config(), "--sparsity", "0.8", "--minutes", "11.4") == 0
    assert "To fit" not in capsys.readouterr().out


# Events are as long as they have gradients, of which there are 96: 24 steps of 6 s and 9 events of 30 s, or 5 of 15 s.
@pytest.mark.parametrize(("minutes", "gradients", "taken"), [(7, 48, "6.9"), (6.8, 24, "3.7")])
def test_a_recipe_is_cut_until_a_run_fits(config, monkeypatch, capsys, tmp_path, minutes, gradients, taken):
    monkeypatch.setattr("obert.compression.draft.measure", lambda *_: Pace(6.0, 60.0, 4, 96, 60 / 96))
    assert recipe(config(), "--sparsity", "0.8", "--minutes", str(minutes), "--name", "mine") == 0
    said = capsys.readouterr().out
    assert f"One run takes about {taken} minutes" in said
    assert "To fit, it has " in said
    assert f"methods.obert.num_gradients {gradients} in place of 96: expect a lower score" in said
    written = (tmp_path / "own/recipes/mine.yaml").read_text()
    assert yaml.safe_load(written)["methods"]["obert"]["num_gradients"] == gradients
    assert f"so that all fits into {minutes:g} minutes" in " ".join(written.split()).replace("# ", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sparsity", "90"], "--sparsity 90: allowed is a fraction between 0 and 1"),
        (["--sparsity", "0.001"], "leave no room"),
        (["--sparsity", "nan"], "--sparsity nan: allowed is a fraction"),
        (["--sparsity", "0.123456789"], "--sparsity 0.123456789: folders and the command line name a sparsity by"),
        (["--sparsity", "0.9999999999"], "at most 4 decimals: round it"),
        (["--sparsity", "0.9", "--name", ""], "1 to 100 lower-case letters"),
        (["--sparsity", "0.9", "--name", "a" * 300], "1 to 100 lower-case letters"),
        (["--sparsity", "0.9", "--minutes", "0"], "--minutes 0"),
        (["--sparsity", "0.9", "--name", "My recipe"], "--name My recipe"),
        (["--sparsity", "0.9", "--name", "gradual"], "configs/recipes/gradual.yaml is there already"),
        (["--sparsity", "0.9", "--name", "ours"], "ours.yaml is there already, and is not overwritten"),
        (["--sparsity", "0.9", "--model", "./nowhere"], "./nowhere"),
        (["--sparsity", "0.9", "--task", "movie_review"], "Did you mean 'movie_reviews'?"),
    ],
)
def test_mistakes_are_told_before_anything_is_timed(config, capsys, monkeypatch, arguments, expected):
    monkeypatch.setattr("obert.compression.draft.measure", lambda *_: pytest.fail("timed"))
    assert recipe(config(), *arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_timed(config, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("obert.compression.draft.measure", lambda *_: pytest.fail("timed"))
    (tmp_path / "other/pruning").mkdir(parents=True)
    (tmp_path / "other/recipes").write_text("in the place of the folder")
    assert recipe(config(extensions=str(tmp_path / "other")), "--sparsity", "0.9") == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_few_steps_have_no_more_events_than_steps(config, paced, tmp_path):
    tasks = {TASK: {"source": "tests/data/movie_reviews", "max_length": 32, "train_examples": 20}}
    assert recipe(config(tasks=tasks), "--sparsity", "0.8", "--name", "small") == 0
    assert yaml.safe_load((tmp_path / "own/recipes/small.yaml").read_text())["scaling"]["events_per_cycle"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["obert", "magnitude"])
def test_the_estimate_is_within_a_factor_of_two_of_a_run(config, method):
    """Ten epochs a cycle at 80 %: 240 steps and 9 events."""
    longer = {TASK: {"smoke_finetune": {"training": {"epochs": 10}}}}
    found = []
    times = pytest.MonkeyPatch()
    with times.context() as patch:
        from obert.compression import draft

        timed = draft.measure
        patch.setattr(draft, "measure", lambda *given: found.append(timed(*given)) or found[-1])
        assert recipe(config(recipe_overrides=longer), "--sparsity", "0.8", "--name", "mine", "--method", method) == 0
    plan = Plan.load(config(recipe_overrides=longer, downstream=[block("mine", method, 0.8)]))
    make(plan.teacher(TASK))
    costs = make(plan.of_stage("downstream")[0]).costs
    assert costs["optimizer_steps"] == 240
    estimated = 240 * found[0].step + 9 * found[0].event
    taken = costs["training_seconds"] + costs["pruning_seconds"]
    assert taken / 2 < estimated < 2 * taken
