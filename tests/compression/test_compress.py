"""`obert compress` from the question to the answer, on a tiny model, and what it refuses."""

import platform
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml

from obert.commands import cli
from obert.compression.runs import Runs
from obert.compression.trials import Trials, make
from obert.experiment.plan import Plan
from obert.foundation.errors import UserError
from obert.foundation.locks import locked
from obert.records.progress import Progress
from obert.records.record import read_record
from obert.training.pace import Pace

ASKED = ["compress", "--task", "movie_reviews", "--name", "asked", "--method", "magnitude", "--threads", "1"]


@pytest.fixture
def project(root, tmp_path, monkeypatch, uri):
    """A folder with the configurations and data that the command needs, and no more; stages run in this process."""
    (tmp_path / "configs/recipes").mkdir(parents=True)
    for recipe in (root / "configs/recipes").iterdir():
        (tmp_path / "configs/recipes" / recipe.name).symlink_to(recipe)
    (tmp_path / "configs/published.yaml").symlink_to(root / "configs/published.yaml")
    (tmp_path / "tests").symlink_to(root / "tests")
    content = yaml.safe_load((root / "configs/smoke.yaml").read_text(encoding="utf-8"))
    for section in ("upstream", "quantize", "benchmark", "sweeps"):
        del content[section]
    content |= {"downstream": [], "tracking_uri": uri}
    (tmp_path / "configs/own.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("obert.compression.draft.measure", lambda *_: Pace(0.1, 0.1, 4, 0))
    calls = []

    def in_process(command, stdout, **_):
        calls.append(command[3])
        return SimpleNamespace(returncode=cli.main(command[3:]))

    monkeypatch.setattr(subprocess, "run", _only(in_process, subprocess.run))
    return SimpleNamespace(folder=tmp_path, calls=calls)


def _only(in_process, real):
    return lambda command, **given: (in_process if "obert" in command else real)(command, **given)


def compress(*arguments, config="configs/own.yaml"):
    return cli.main([*ASKED, "--config", config, *arguments])


def changed(**changes):
    """The experiment's file with changes."""
    path = Path("configs/changed.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(Path("configs/own.yaml").read_text()) | changes))
    return str(path)


def test_the_answer_has_its_runs_and_they_are_made_once(project, capsys):
    """A drop of 100 points is always sure: 90, 97 and 98 % are tried, and 98 % is the most."""
    assert compress("--max-drop", "100") == 0
    said = capsys.readouterr().out
    far, accurate, fast = (
        next(line for line in said.splitlines() if line.startswith(word))
        for word in ("how far", "how accurate", "how fast")
    )
    assert "98 % of the encoder's weights are zero" in far
    plan = Plan.load("configs/asked.yaml")
    assert [run.key.seed for run in plan.of_stage("downstream")] == [1, 2]
    scores = [read_record(run.folder / "metrics.json").metrics["accuracy"].value for run in plan.of_stage("downstream")]
    assert f"accuracy {sum(scores) / 2:.2f} [" in accurate and "the mean of 2 models with fresh seeds" in accurate
    [timed] = [read_record(r.folder / "metrics.json") for r in plan.of_stage("benchmark") if r.key.method]
    assert f"{timed.metrics['sparse_speedup'].value:.2f} [" in fast
    assert "1 thread of " in fast
    deployed = next(line for line in said.splitlines() if line.startswith("For deployment: "))
    assert Path(deployed.removeprefix("For deployment: ")).is_file()
    assert said.count("sure to be at most 100") == 3 and "not sure" not in said
    assert Path("results/compress/asked/answer.txt").read_text() in said
    held_out = Plan.load("results/compress/asked/search.yaml")
    assert held_out.teacher("movie_reviews").task.held_out == 0.2
    assert said.count(" teacher/movie_reviews/") == 2, "each run is named once, when it is made"
    assert len(list(Path("results/logs/asked_search").rglob("*.log"))) == 4
    before = len(project.calls)
    assert compress("--max-drop", "100") == 0
    assert len(project.calls) == before, "all of it is there"
    assert compress("--max-drop", "1") == 2
    assert "answers another question. Give another --name, or delete" in capsys.readouterr().err


def test_obert_draws_no_more_gradients_than_the_search_has_examples(project, monkeypatch):
    """By default it would take 1,024, or all of the 96 examples, of which the search holds a part out."""
    monkeypatch.setattr("obert.commands.compress.Trials", lambda decision, _: raised(UserError("decided")))
    assert compress("--max-drop", "1", "--method", "obert") == 2
    task = Plan.load("configs/own.yaml").teacher("movie_reviews").task
    left = len(task.model_copy(update={"held_out": 0.2}).load()["train"])
    recipe = Path("configs/recipes/asked.yaml").read_text()
    assert yaml.safe_load(recipe)["methods"]["obert"]["num_gradients"] == left < 96
    assert f"the search has {left} examples to draw from" in " ".join(recipe.replace("#", "").split())


def test_no_sparsity_is_an_error_that_says_what_was_tried(project, capsys, monkeypatch):
    monkeypatch.setattr("obert.compression.verdict.Verdict.within", lambda *_: False)
    assert compress("--max-drop", "0", "--minutes", "1000") == 2
    said = capsys.readouterr().err
    assert "no sparsity that was tried is sure to lose at most 0 points" in said and "  90 %: " in said


def raised(error):
    raise error


def test_a_file_that_is_there_is_not_overwritten(project, capsys):
    before = Path("configs/own.yaml").read_text()
    assert compress("--max-drop", "1", "--name", "own") == 2
    assert "configs/own.yaml is there already, and is not overwritten" in capsys.readouterr().err
    assert Path("configs/own.yaml").read_text() == before
    assert not Path("results/logs/own").exists(), "what was checked and counted of that experiment is not replaced"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-drop", "-1"], "--max-drop: Input should be greater than or equal to 0 (found -1.0)"),
        (["--max-drop", "1", "--minutes", "0"], "--minutes: Input should be greater than 0"),
        (["--max-drop", "1", "--name", "My answer"], "--name: String should match pattern"),
        (["--max-drop", "1", "--source", "x"], "--source goes with --model"),
        (["--max-drop", "1", "--minutes", "0.01"], "--minutes 0.01 is too short"),
        (["--max-drop", "1", "--threads", "1000"], "--threads 1000: this process may use"),
    ],
)
def test_what_cannot_be_asked(project, options, said, capsys):
    assert compress(*options) == 2
    assert said in capsys.readouterr().err
    assert not project.calls and not Path("configs/asked.yaml").exists()


def test_a_decision_that_cannot_be_is_damaged(project, capsys, monkeypatch):
    monkeypatch.setattr("obert.commands.compress.Trials", _stop)
    with pytest.raises(Stopped):
        compress("--max-drop", "1")
    kept = Path("results/compress/asked/decision.json")
    good = kept.read_text()
    for bad in (good[:100], good.replace('"train_examples": null', '"train_examples": -5'), "[]", ""):
        kept.write_text(bad)
        assert compress("--max-drop", "1") == 2
        assert f"{kept} is damaged: delete" in capsys.readouterr().err
    kept.write_text(good)
    recipe = Path("configs/recipes/asked.yaml")
    written = recipe.read_text()
    recipe.unlink()
    with pytest.raises(Stopped):
        compress("--max-drop", "1")
    assert recipe.read_text() == written


class Stopped(Exception):
    pass


def _stop(*_):
    raise Stopped


def test_too_few_examples_to_hold_some_out_are_told_before_anything_is_timed(project, capsys, monkeypatch):
    few = Path("few")
    few.mkdir()
    for name, count in (("train", 4), ("validation", 2)):
        lines = Path(f"tests/data/movie_reviews/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        (few / f"{name}.jsonl").write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    monkeypatch.setattr("obert.tasks.hashed", lambda _: 0.9)
    assert compress("--max-drop", "1", config=changed(tasks={"movie_reviews": {"source": str(few)}})) == 2
    said = capsys.readouterr()
    assert "held_out 0.2 of 4 training examples leaves one part empty" in said.err and "timing" not in said.out
    assert not project.calls and not Path("configs/recipes/asked.yaml").exists()


def test_a_model_that_is_no_fine_tuned_one_is_told_before_anything_is_timed(project, capsys):
    assert compress("--max-drop", "1", config=changed(teacher="given", recipe_overrides={})) == 2
    said = capsys.readouterr()
    assert "the file lacks classifier.bias, classifier.weight, which would be random" in said.err
    assert "timing" not in said.out and not project.calls


def test_a_recipe_may_be_edited(project):
    """Its schedule made plain: all trials take as long."""
    edited = yaml.safe_load(Path("configs/recipes/smoke_gradual.yaml").read_text())
    Path("configs/recipes/edited.yaml").write_text(yaml.safe_dump(edited))
    trials = Trials(SimpleNamespace(question=SimpleNamespace(name="edited"), recipe=""), Path("results"))
    assert trials.cycles(0.5) == trials.cycles(0.99)


def test_seconds_are_those_that_pass(monkeypatch):
    """A process that takes long to start counts; of a run that was made before, its record tells."""
    run = SimpleNamespace(key=SimpleNamespace(path="teacher/x"))
    monkeypatch.setattr("obert.compression.trials.finished", lambda _: None)
    clock = iter([0.0, 40.0, 100.0, 100.1, 200.0, 210.0])
    monkeypatch.setattr("obert.compression.trials.time.monotonic", lambda: next(clock))
    record = SimpleNamespace(wall_time_seconds=5.0, costs={})
    runs = SimpleNamespace(make=lambda _: record)
    assert [make(runs, run), make(runs, run)] == [40.0, 5.0]
    record.costs = {"training_seconds": 50.0, "pruning_seconds": 10.0}
    assert make(runs, run) == 60.0, "it was killed, and went on in another process"


def test_what_another_process_makes_is_waited_for(tmp_path, monkeypatch, capsys):
    """Killed with -9, the command leaves the run's process behind, and is started again."""
    run, made = SimpleNamespace(checkpoints=tmp_path), []
    monkeypatch.setattr("obert.records.progress.SECONDS", 0.01)
    monkeypatch.setattr("obert.compression.runs.finished", lambda _: made[0] if made else None)
    here = psutil.Process()
    told = Progress(host=platform.node(), pid=here.pid, created=here.create_time(), started_at=datetime.now(UTC))
    (tmp_path / "progress.json").write_text(told.model_dump_json())

    def end():
        made.append("record")
        (tmp_path / "progress.json").unlink()

    timer = threading.Timer(0.2, end)
    timer.start()
    assert Runs(None).make(run) == "record", "no second process is started"
    assert capsys.readouterr().out == f"process {here.pid} on {platform.node()} makes it already: waiting\n"
    timer.join()


def test_a_second_command_of_a_name_says_that_it_waits(project, capsys):
    lock = Path("results/compress/own/.lock")
    lock.parent.mkdir(parents=True)
    holds, ends = threading.Event(), threading.Event()

    def first():
        with locked(lock):
            holds.set()
            ends.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert holds.wait(60)
    threading.Timer(0.2, ends.set).start()
    compress("--max-drop", "1", "--name", "own")
    assert capsys.readouterr().out == "another process makes 'own' already: waiting\n"
    thread.join()


def test_a_failed_run_names_its_log(project, monkeypatch, capsys):
    def fails(command, stdout, **_):
        stdout.write(b"obert teacher: it is broken.\n")
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(subprocess, "run", _only(fails, lambda *_, **__: SimpleNamespace(returncode=1, stdout="")))
    assert compress("--max-drop", "1") == 2
    said = capsys.readouterr().err
    assert "failed: obert teacher: it is broken. All that it printed is in results/logs/asked_search/teacher/" in said


@pytest.mark.slow
def test_a_fine_tuned_model_is_taken_as_it_is(project, capsys, tmp_path):
    assert compress("--max-drop", "100") == 0
    model = Plan.load("configs/asked.yaml").teacher("movie_reviews").folder / "model"
    asked = ["--fine-tuned", str(model), "--source", "tests/data/movie_reviews", "--max-drop", "100", "--name", "again"]
    assert cli.main([*ASKED, *asked]) == 0
    capsys.readouterr()
    plan = Plan.load("configs/again.yaml")
    teacher, [first, _] = plan.teacher("movie_reviews"), plan.of_stage("downstream")
    assert read_record(teacher.folder / "metrics.json").costs["optimizer_steps"] == 0
    assert first.recipe.start == "teacher"
