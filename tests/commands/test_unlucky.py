"""Ctrl-C, a full disk and a read-only folder in every command: one message, a status that says which, nothing lost."""

import argparse
import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from planned import results_in

from obert.commands import cli
from obert.experiment import folders
from obert.experiment.plan import Plan
from obert.foundation.errors import UserError
from obert.records.recording import Recording
from obert.sweeps import runner
from obert.sweeps.trials import Trials


def commands():
    """Every command, with the arguments that it asks for."""
    (sub,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in sub.choices.items():
        given = [name]
        for action in command._actions:
            value = str(next(iter(action.choices or ()), "0.5"))
            if action.required:
                given += [action.option_strings[0], value] if action.option_strings else [value]
        for group in command._mutually_exclusive_groups:
            if group.required:
                given += [group._group_actions[0].option_strings[0], "0.5"]
        yield given


COMMANDS = list(commands())
UNLUCKY = {
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
    "a full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "the disk is full"),
    "a full disk in torch's words": (RuntimeError("basic_ios::clear: iostream error"), 2, "when the disk is full"),
    "a read-only folder": (OSError(errno.EROFS, "Read-only file system", "results/x"), 2, "results/x: Read-only file"),
}


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda given: given[0])
@pytest.mark.parametrize("name", UNLUCKY)
def test_bad_luck_in_a_command_is_one_message(root, monkeypatch, capsys, arguments, name):
    error, status, expected = UNLUCKY[name]
    parsed = cli.parser().parse_args(arguments)

    def fail(_):
        raise error

    parsed.run = fail
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv: parsed)
    assert cli.main(arguments) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"obert {arguments[0]}: ")
    assert expected in line


def test_the_table_has_every_command():
    names = [given[0] for given in COMMANDS]
    assert {"prepare", "check", "teacher", "downstream", "export", "benchmark", "sweep", "track", "tables"} <= {*names}
    assert len(names) == len(set(names)) >= 15


def test_workers_of_a_sweep_end_with_it(root, tmp_path, monkeypatch):
    results_in(tmp_path, monkeypatch)
    started, popen = [], subprocess.Popen
    for name in ("initialize", "try_artifacts"):
        monkeypatch.setattr(runner.store, name, lambda *_: None)
    monkeypatch.setattr(runner, "_make_source", lambda *_: None)

    def start(command):
        started.append(popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[-1]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start)
    for place in ("work", "__init__"):
        with monkeypatch.context() as patch:
            patch.setattr(Trials, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                runner.run("configs/sweeps/smoke.yaml", workers=3)
    assert len(started) == 4
    assert all(process.poll() is not None for process in started)


def test_a_place_that_cannot_be_written_is_told_before_any_work(root, tmp_path, monkeypatch):
    """A file where the folder should be is refused to everyone; a read-only folder would not be to root."""
    results_in(tmp_path / "results", monkeypatch)
    plan = Plan.load("configs/smoke.yaml")
    for blocked in (folders.RESULTS, folders.RESULTS / "checkpoints"):
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("a file")
        with pytest.raises(
            UserError, match=r"results of teacher.* cannot be written \(Not a directory\).*make this one"
        ):
            Recording(next(run for run in plan if run.key.stage == "teacher"))
        blocked.unlink()


def test_check_tells_of_results_that_cannot_be_written(root, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results" / "here"
    monkeypatch.setattr("obert.experiment.folders.RESULTS", results)
    (results / "runs" / "smoke" / "teacher").mkdir(parents=True)
    assert cli.main(["check", "--config", "configs/smoke.yaml"]) == 0
    shutil.rmtree(results.parent)
    results.parent.write_text("a file")
    assert cli.main(["check", "--config", "configs/smoke.yaml"]) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told_before_any_work(root, tmp_path, monkeypatch):
    results_in(tmp_path, monkeypatch)
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\)"):
        Recording(next(run for run in Plan.load("configs/smoke.yaml") if run.key.stage == "teacher"))


@pytest.mark.slow
def test_ctrl_c_in_training_and_the_same_command_goes_on(root, tmp_path, uri):
    """The signal itself, sent to a process that trains: status 130, and a rerun from the checkpoint."""
    content = yaml.safe_load((root / "configs/smoke.yaml").read_text(encoding="utf-8"))
    content["tracking_uri"] = uri
    content["model"]["source"] = str(root / "tests/data/tiny_bert")
    for name, options in content["tasks"].items():
        options["source"] = str(root / "tests/data" / name)
    content["recipe_overrides"] = {
        "movie_reviews": {content["teacher"]: {"training": {"epochs": 300.0, "checkpoint_steps": 5}}}
    }
    for folder in ("configs", "tests"):
        (tmp_path / folder).symlink_to(root / folder)
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "obert", "teacher", "--config", "smoke.yaml", "--task", "movie_reviews"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for started in range(2):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        before = set(tmp_path.glob("results/checkpoints/**/complete.json"))
        deadline = time.monotonic() + 300
        while set(tmp_path.glob("results/checkpoints/**/complete.json")) <= before:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "obert teacher: interrupted; the same command goes on" in said.splitlines()
        assert "Traceback" not in said
        assert ("resuming from" in said) == bool(started)
    assert not list(tmp_path.glob("results/runs/**/metrics.json"))
