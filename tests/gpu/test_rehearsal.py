"""The GPU script on the CPU: one valid line a part, what is done is not repeated, and a failure ends nothing else."""

import json
import subprocess
import sys
import zipfile

import carry
import parts
import pytest
import torch
from places import ROOT
from samples import with_new_head

from obert.heads.question_answering import QuestionAnswering
from obert.models.encoders import load_tokenizer, prunable_weights
from obert.tasks.squad import Squad

KEYS = {
    "environment": {"transformers", "python"},
    "tests": {"passed", "failed", "skipped", "failures"},
    "masks": {"weights", "pruned", "differing", "differing_on_gpu"},
    "prune_step": {"speedup", "seconds", "published_seconds", "floor_seconds", "peak_memory_gb", "estimated_memory_gb"},
    "training:384": {"float32", "bfloat16", "batch", "length"},
    "training:128": {"float32", "bfloat16", "batch", "length"},
    "fisher": {"speedup", "max_relative_error", "peak_memory_gb", "leaf_seconds", "leaf_cholesky_inverse_seconds"},
    "kernels": {"scenarios", "shapes"},
    "squad:teacher": {"f1", "exact_match", "examples", "costs", "sparsity"},
    "squad:obert": {"f1", "exact_match", "examples", "costs", "sparsity"},
    "squad:magnitude": {"f1", "exact_match", "examples", "costs", "sparsity"},
}


def lines_of(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def rehearse(folder, *options) -> int:
    return parts.main(["--rehearse", "--folder", str(folder), *options])


@pytest.mark.slow
def test_every_part_gives_its_line(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("OUT", str(out))
    assert rehearse(tmp_path, "--seconds", "3000") == 0
    *lines, last = lines_of(capsys)
    assert last == {"left": [], "failed": []}
    assert {line["part"] for line in lines} == KEYS.keys()
    for line in lines:
        assert line.keys() > KEYS[line["part"]] | {"wall_seconds", "device", "torch", "threads"}
        assert line["rehearsal"] is True
    found = {line["part"]: line for line in lines}
    assert found["masks"]["differing"] == [0, 0, 0]  # one device in both places
    assert found["masks"]["pruned"] == round(0.9 * found["masks"]["weights"])
    assert found["tests"]["failed"] == 0
    assert found["tests"]["passed"] > 20
    for method in ("obert", "magnitude"):
        assert found[f"squad:{method}"]["sparsity"] == pytest.approx(0.9, abs=1e-3)
    assert list(map(json.loads, (out / parts.LINES).read_text().splitlines())) == lines


def test_what_is_done_is_not_repeated_and_what_failed_is(tmp_path, capsys, monkeypatch):
    """With a part that is real, and one that reads a file."""
    (tmp_path / parts.LINES).write_text('{"part": "environment", "error": "the first time"}\n')
    real, file = parts.Part.command.fget, tmp_path / "figures.json"
    reading = [sys.executable, "-c", f"print('noise'); print(open({str(file)!r}).read())"]
    monkeypatch.setattr(parts.Part, "command", property(lambda self: real(self) if ":" not in self.name else reading))
    options = ("--parts", "environment", "squad:obert", "squad:magnitude")
    assert rehearse(tmp_path, *options) == 1
    *lines, last = lines_of(capsys)
    assert [line["part"] for line in lines[:1]] == ["environment"]
    assert lines[0].keys() > KEYS["environment"]
    assert all("FileNotFoundError" in line["error"] and "figures.json" in line["error"] for line in lines[1:])
    both = ["squad:obert", "squad:magnitude"]
    assert (last["left"], sorted(last["failed"])) == (both, sorted(both))
    file.write_text('{"f1": 7}')
    assert rehearse(tmp_path, *options) == 0
    *lines, last = lines_of(capsys)
    assert sorted((line["part"], line["f1"]) for line in lines) == [("squad:magnitude", 7), ("squad:obert", 7)]
    assert last == {"left": [], "failed": []}
    assert rehearse(tmp_path, *options) == 0
    assert lines_of(capsys) == [{"left": [], "failed": []}]


def test_a_part_that_cannot_end_in_time_is_not_begun(tmp_path, capsys):
    assert rehearse(tmp_path, "--seconds", "15", "--parts", "environment") == 0
    assert lines_of(capsys) == [{"left": ["environment"], "failed": []}]


def test_a_part_is_stopped_at_the_budget(tmp_path, monkeypatch):
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(parts.Part, "command", property(lambda self: sleeping))
    running = parts.Running(parts.Part("masks", 1), tmp_path, [])
    line = running.line(running.started + 0.5)
    assert line["error"] == "stopped: the time budget is used up"
    assert running.process.returncode != 0
    assert line["wall_seconds"] < 20


def test_carried_wheels_are_used_where_packages_are_missing(tmp_path):
    """The script's own folder, with a Python that finds nothing installed."""
    script = tmp_path / "tests" / "gpu" / "run.sh"
    script.parent.mkdir(parents=True)
    script.write_text((ROOT / "tests" / "gpu" / "run.sh").read_text())
    (script.parent / "parts.py").write_text("import only_carried, sys; print(only_carried.VALUE, sys.argv[1:])")
    wheels = tmp_path / "results" / "gpu" / "carried" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "only_carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("only_carried.py", "VALUE = 7")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    done = subprocess.run(
        ["sh", str(script), "--rehearse"], env={"PYTHON": str(bare), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("7 ['--rehearse']\n", 0), done.stderr


def test_what_is_carried_is_the_model_and_the_data(root, tmp_path):
    data = root / "tests" / "data"
    carry.carry_weights(data / "tiny_bert", tmp_path / "model")
    carry.carry_data(data / "city_qa", tmp_path / "data")
    expected = prunable_weights(with_new_head(data / "tiny_bert", QuestionAnswering()))
    found = prunable_weights(with_new_head(tmp_path / "model", QuestionAnswering()))
    assert load_tokenizer(tmp_path / "model").vocab_size == load_tokenizer(data / "tiny_bert").vocab_size
    for name, weight in expected.items():
        assert torch.equal(found[name], weight.half().float())
    splits = [Squad(source=str(folder)).read() for folder in (data / "city_qa", tmp_path / "data")]
    for name, split in splits[0].items():
        assert splits[1][name].to_list() == split.to_list()
