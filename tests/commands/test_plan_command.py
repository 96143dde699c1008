"""What `obert plan` prints and draws, against numbers that are worked out by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from planned import finish

from obert.commands.cli import main
from obert.experiment.plan import Plan
from obert.experiment.reading import merge
from obert.experiment.sizes import DataSize, Sizes
from obert.statistics.formatting import DASH

SCALED = {
    "description": "Scaled.",
    "stage": "downstream",
    "training": {"batch_size": 16, "learning_rate": {"initial": 1e-4, "final": 1e-5}},
    "scaling": {"unit_epochs": 2, "cycles": {"density": 0.2}},
    "methods": {"magnitude": {}},
}
LINEAR = {
    "description": "Linear.",
    "stage": "downstream",
    "training": {"epochs": 10, "batch_size": 16, "learning_rate": {"initial": 1e-4}},
    "schedule": {"start_epoch": 0, "end_epoch": 8, "every_epochs": 0.2, "initial_sparsity": 0.0, "shape": "linear"},
    "methods": {"magnitude": {}},
}
BY_STEPS = merge(LINEAR, {"schedule": {"every_epochs": None, "every_steps": 3}})
DOWNSTREAM = [
    {"recipes": ["scaled"], "tasks": ["movie_reviews"], "sparsities": [0.5, 0.9]},
    {"recipes": ["linear", "by_steps"], "tasks": ["movie_reviews"], "sparsities": [0.8]},
    {"recipes": ["smoke_one_shot"], "tasks": ["movie_reviews"], "methods": ["magnitude"], "sparsities": [0.8]},
]


@pytest.fixture
def config(root, tmp_path, monkeypatch):
    """The smoke experiment with recipes of its own, and nothing finished."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    (tmp_path / "own/recipes").mkdir(parents=True)
    for name, recipe in {"scaled": SCALED, "linear": LINEAR, "by_steps": BY_STEPS}.items():
        (tmp_path / f"own/recipes/{name}.yaml").write_text(yaml.safe_dump(recipe))
    content = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    for section in ("upstream", "quantize", "benchmark"):
        del content[section]
    content |= {"downstream": DOWNSTREAM, "extensions": str(tmp_path / "own")}
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def finished(config):
    """The same with a finished teacher: 96 features, in batches of 16 six steps an epoch."""
    teacher = Plan.load(config).teacher("movie_reviews")
    finish(teacher, 90.0, data={"features": {"train": 96}})
    return config


@pytest.fixture
def counted(config):
    """The same as a check leaves it before the first run."""
    plan = Plan.load(config)
    sizes = Sizes.of(plan.experiment)
    size = DataSize(train=96, validation=48, sequences=1, tokens=20.0, longest=32)
    sizes.add_data(plan.teacher("movie_reviews"), size)
    sizes.save(plan.experiment)
    return config


def printed(capsys, *arguments):
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def cells(text, task="movie_reviews"):
    return [line.split()[1:] for line in text.splitlines() if line.startswith(f"  {task} ")]


def heights(text, name):
    """The eighths of a line that each column of the first picture of a quantity is high."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == [name] and "|" in line)
    columns = [line.partition("|")[2].ljust(60) for line in lines[first : first + 3]]
    return [sum(" ▁▂▃▄▅▆▇█".index(block) for block in column) for column in zip(*columns, strict=True)]


def test_runs_are_counted_by_stage(config, capsys):
    text = printed(capsys, "--config", config)
    assert "experiment smoke: 7 runs" in text
    # two teachers; four gradual runs with one method, one of one-shot pruning
    assert [line.split() for line in text.splitlines() if line.startswith(("teacher ", "downstream "))][:2] == [
        ["teacher", "2", "0", "2", "1", DASH, DASH, "1"],
        ["downstream", "5", "0", "1", "4", "1", "3", "1"],
    ]
    assert "in one shot, without training, to 80 %" in text


def test_finished_runs_are_counted(finished, capsys):
    text = printed(capsys, "--config", finished)
    assert next(line.split()[:3] for line in text.splitlines() if line.startswith("teacher ")) == ["teacher", "2", "1"]


def test_what_other_code_has_made_is_not_done(finished, capsys):
    teacher = Plan.load(finished).teacher("movie_reviews")
    finish(teacher, 90.0, code_hash="0" * 16)
    text = printed(capsys, "--config", finished)
    assert next(line.split()[:3] for line in text.splitlines() if line.startswith("teacher ")) == ["teacher", "2", "0"]
    assert "estimate: 7 runs to be made, " in text


def test_nothing_is_estimated_from_nothing(config, capsys):
    text = printed(capsys, "--config", config)
    assert "estimate: 7 runs to be made\n" in text
    rows = [line.split() for line in text.splitlines() if line.endswith("nothing yet")]
    assert rows == [
        [stage, count, *[DASH] * 3, "nothing", "yet"] for stage, count in (("teacher", "2"), ("downstream", "5"))
    ]
    assert "`obert check` counts what runs train on" in text


def test_what_is_left_is_estimated_from_finished_runs(config, capsys):
    """A teacher of 200 s, and the run to 50 % of the recipe that is scaled: 60 steps in 600 s. At 90 % it has 144."""
    plan = Plan.load(config)
    scaled = [plan.find("downstream", recipe="scaled", sparsity=s) for s in (0.5, 0.9)]
    for run, steps, seconds, memory in (
        (plan.teacher("movie_reviews"), 6, 200.0, 800.0),
        (scaled[0], 60, 600.0, 1500.0),
    ):
        fields = {"wall_time_seconds": seconds, "peak_memory_mb": memory, "costs": {"optimizer_steps": steps}}
        finish(run, 90.0, data={"features": {"train": 96}}, environment={"gpu": None}, **fields)
    chosen = ["--config", config, "--recipe", "scaled"]
    text = printed(capsys, *chosen, "--cores", "1")
    assert "estimate: 1 run to be made, about 24 min on 1 core\n" in text
    row = next(line for line in text.splitlines() if line.startswith("downstream ") and "pace" in line)
    assert row.split()[1:7] == ["1", "24", "min", "24", "min", "1.5"]
    assert row.endswith("the pace of finished runs on the same task and model (1)")
    text = printed(capsys, *chosen, "--sparsity", "0.5")
    assert "estimate: nothing is left to be made" in text


def test_power_is_planned_where_methods_are_compared(config, capsys):
    """Standard errors of 872 examples and 3 seeds: 1.07 and 0.29, with Student's 4.30 for the seeds."""
    assert "power:" not in printed(capsys, "--config", config), "one method"
    experiment = yaml.safe_load(Path(config).read_text())
    block = {**DOWNSTREAM[2], "methods": ["magnitude", "random", "obert"]}
    content = experiment | {"downstream": [block], "seeds": [0, 1, 2]}
    enough = "1 point would take 23,080 examples and 5 seeds\n"
    for examples, said in (
        (872, f"  movie_reviews: 3.4 points with 872 examples and 3 seeds; {enough}"),
        (None, f"  movie_reviews: 3 seeds; `obert check` counts the examples; {enough}"),
    ):
        content["tasks"]["movie_reviews"]["eval_examples"] = examples
        Path(config).write_text(yaml.safe_dump(content))
        text = printed(capsys, "--config", config)
        assert "found 80 times in a hundred, if two models differ on 10 % of the examples" in " ".join(text.split())
        assert said in text


def test_power_is_that_of_the_examples_there_are_not_of_those_allowed(config, capsys):
    content = yaml.safe_load(Path(config).read_text())
    content |= {"downstream": [{**DOWNSTREAM[2], "methods": ["magnitude", "random"]}], "seeds": [0, 1, 2]}
    content["tasks"]["movie_reviews"]["eval_examples"] = 1000
    Path(config).write_text(yaml.safe_dump(content))
    plan = Plan.load(config)
    sizes = Sizes.of(plan.experiment)
    counted = DataSize(train=100, validation=872, sequences=1, tokens=20.0, longest=32)
    sizes.add_data(next(iter(plan.of_stage("downstream"))), counted)
    sizes.save(plan.experiment)
    assert "  movie_reviews: 3.4 points with 872 examples and 3 seeds" in printed(capsys, "--config", config)


def test_power_is_not_planned_for_what_is_no_mean_over_examples(config, capsys):
    block = {**DOWNSTREAM[2], "methods": ["magnitude", "random"], "tasks": ["stsb"]}
    content = yaml.safe_load(Path(config).read_text())
    content["tasks"] = {"stsb": {"source": "anywhere", "eval_examples": 100}}
    Path(config).write_text(yaml.safe_dump(content | {"downstream": [block]}))
    assert "  stsb: not planned, as pearson is no mean over the examples\n" in printed(capsys, "--config", config)


def test_a_stated_rate_is_named_as_one(config, capsys):
    assert main(["check", "--config", config]) == 0
    text = printed(capsys, "--config", config, "--cores", "2")
    assert "estimate: 7 runs to be made, about " in text and " on 2 cores\n" in text
    assert "a stated rate" in text and "A stated rate is that of one machine" in text


def test_a_scaled_recipe_is_resolved_for_each_sparsity(finished, capsys):
    """ln(1 - s) / ln(0.8) is 3.1 at 50 % and 10.3 at 90 %: 5 and 12 cycles of two epochs."""
    text = printed(capsys, "--config", finished, "--recipe", "scaled")
    assert cells(text) == [
        ["50", "5", "10", "60", "2", "to", "8", "31", "50"],
        ["90", "12", "24", "144", "2", "to", "22", "101", "70"],
    ]
    words = " ".join(text.split())
    assert "50 %, movie_reviews: learning rate 0.0001 to 1e-05, anew at epochs 2, 4, 6, 8 " in words
    assert "anew at epochs 2, 4, 6, ..., 22 " in words
    assert "cycles of 2 epochs, their number density (0.2)" in words


def test_the_picture_shows_the_schedule(finished, capsys):
    """Ten epochs in 60 columns, six an epoch: up in a straight line to epoch 8, where the sparsity is that of the
    target; the learning rate falls in a straight line to 0."""
    text = printed(capsys, "--config", finished, "--recipe", "linear")
    sparsity, rate = heights(text, "sparsity"), heights(text, "rate")
    assert max(len(line) for line in text.splitlines() if "|" in line) <= 80
    for column in range(60):
        epoch = (column + 0.5) / 6
        assert sparsity[column] == pytest.approx(24 * min(epoch / 8, 1), abs=1.5)
        assert rate[column] == pytest.approx(24 * (1 - epoch / 10), abs=1.5)
    assert sparsity[-12:] == [24] * 12 and sparsity[0] <= 1


def test_what_needs_the_number_of_features_is_left_out_without_it(config, capsys):
    text = printed(capsys, "--config", config)
    assert cells(text)[1:] == [
        ["50", "5", "10", DASH, "2", "to", "8", "31", "50"],
        ["90", "12", "24", DASH, "2", "to", "22", "101", "70"],
        ["80", "1", "10", DASH, "0", "to", "8", "41", "0"],
        ["80", "1", "10", DASH, "0", "to", "8", DASH, "0"],
    ]
    assert "Steps are known when a task's training features are counted" in text
    assert text.count("sparsity    ") == 3, "no picture of what goes by steps"


def test_what_a_check_has_counted_is_known(counted, capsys):
    """96 features in batches of 16 are six steps an epoch, as after a finished run."""
    text = printed(capsys, "--config", counted)
    assert [row[3] for row in cells(text)] == ["6", "60", "144", "60", "60"]
    assert "Steps are known when" in text, "of the other task nobody knows"
    assert "Steps are known when" not in printed(capsys, "--config", counted, "--task", "movie_reviews")


def test_events_that_go_by_steps_are_counted_with_it(finished, capsys):
    """48 steps to epoch 8, one event each third of them."""
    assert cells(printed(capsys, "--config", finished, "--recipe", "by_steps"))[0][-2] == "17"


def test_the_count_of_other_data_is_not_taken(finished, capsys):
    path = Path(finished)
    content = yaml.safe_load(path.read_text())
    content["tasks"]["movie_reviews"]["train_examples"] = 50
    path.write_text(yaml.safe_dump(content))
    assert cells(printed(capsys, "--config", finished, "--recipe", "linear"))[0][3] == DASH


def test_a_figure_is_saved(finished, capsys, tmp_path):
    target = tmp_path / "made/schedules.svg"
    text = printed(capsys, "--config", finished, "--recipe", "scaled", "--figure", str(target))
    assert f"figure: {target}" in text and target.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sparsity", "0.7"], "plans no run with --sparsity 0.7. It has sparsity 0.5, 0.9, 0.8"),
        (["--recipe", "scald"], "It has recipe smoke_finetune, scaled, linear, by_steps, smoke_one_shot"),
        (["--figure", "plan.pdf"], "--figure plan.pdf: a figure is written as .svg or .png"),
        (["--recipe", "smoke_one_shot", "--figure", "plan.svg"], "nothing to draw"),
    ],
)
def test_mistakes_are_told(config, capsys, arguments, expected):
    assert main(["plan", "--config", config, *arguments]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "named", "problem"),
    [("folder.svg", "folder.svg", "it is a folder"), ("edited.yaml/x.svg", "edited.yaml", "Not a directory")],
)
def test_a_figure_that_cannot_be_written_is_told(config, capsys, tmp_path, place, named, problem):
    (tmp_path / "folder.svg").mkdir()
    assert main(["plan", "--config", config, "--recipe", "linear", "--figure", str(tmp_path / place)]) == 2
    said = capsys.readouterr().err
    assert f"--figure: {tmp_path / named} cannot be written ({problem})" in said


def test_a_terminal_without_dashes_and_blocks_is_served(config, root):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "obert", "plan", "--config", config, "--recipe", "linear"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    assert "sparsity    80 % |" in done.stdout


def test_a_target_of_nothing_is_drawn(config, capsys):
    path = Path(config)
    content = yaml.safe_load(path.read_text())
    content["downstream"] = [{"recipes": ["linear"], "tasks": ["movie_reviews"], "sparsities": [0.0]}]
    path.write_text(yaml.safe_dump(content))
    assert set(heights(printed(capsys, "--config", config, "--recipe", "linear"), "sparsity")) == {0}


def test_a_cycle_without_a_step_is_told_with_its_recipe(finished, capsys):
    """Six steps an epoch: a cycle of 0.1 epochs has none or one."""
    path = Path(finished).parent / "own/recipes/scaled.yaml"
    path.write_text(yaml.safe_dump(merge(SCALED, {"scaling": {"unit_epochs": 0.1, "events_per_cycle": 0.5}})))
    assert main(["plan", "--config", finished]) == 2
    said = capsys.readouterr().err
    assert "recipe scaled, task movie_reviews, sparsity 0.5: training.learning_rate: a cycle of it has 0 steps" in said


def test_events_on_one_step_are_told_with_their_recipe(finished, capsys):
    path = Path(finished).parent / "own/recipes/linear.yaml"
    path.write_text(yaml.safe_dump(merge(LINEAR, {"schedule": {"every_epochs": 0.1}})))
    assert main(["plan", "--config", finished]) == 2
    said = capsys.readouterr().err
    assert "recipe linear, task movie_reviews, sparsity 0.8: schedule.every_epochs 0.1 is less than one" in said


def test_events_on_one_step_are_told_before_the_first_run(counted, capsys):
    path = Path(counted).parent / "own/recipes/linear.yaml"
    path.write_text(yaml.safe_dump(merge(LINEAR, {"schedule": {"every_epochs": 0.1}})))
    assert main(["plan", "--config", counted]) == 2
    assert "sparsity 0.8: schedule.every_epochs 0.1 is less than one" in capsys.readouterr().err


def test_text_takes_no_more_libraries_than_the_plan(config, root):
    code = (
        "import sys; from obert.commands.cli import main; main(['plan', '--config', sys.argv[1]]);"
        "print(sorted({'transformers', 'datasets', 'mlflow', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "[]"
