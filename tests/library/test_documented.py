"""The examples of the README and of the library's page run as they stand."""

import re

import pytest
import torch
from torch import nn

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def lines_of(script):
    return [line for line in script.splitlines() if line.strip()]


def block_with(root, text):
    (found,) = (block for block in blocks_of(root / "docs/howto/library.md") if text in block)
    return found


@pytest.fixture
def names(root):
    """What the page's first example leaves."""
    names = {}
    exec(blocks_of(root / "docs/howto/library.md")[0], names)
    return names


@pytest.mark.parametrize("page", ["README.md", "docs/howto/library.md"])
def test_the_first_example_prunes_in_ten_lines(page, root):
    script = blocks_of(root / page)[0]
    assert len(lines_of(script)) <= 10
    names = {}
    exec(script, names)
    assert names["report"].total.measured == pytest.approx(0.8, abs=1e-4)
    assert "predicted loss increase" in str(names["report"])


@pytest.mark.parametrize("method", ["obert", "soft_movement"])
def test_the_plain_loop(method, root, names):
    script = block_with(root, "for batch in batches")
    assert len(lines_of(script)) <= 10
    model, held = names["model"], names["report"].masks
    if method == "soft_movement":  # which may not be held to masks of before
        names["optimizer"] = torch.optim.AdamW(model.parameters())
    exec(script.replace("schedule, optimizer", f"schedule, '{method}', optimizer"), names)
    report = names["report"]
    assert report.method == method
    assert report.total.measured == pytest.approx(0.95, abs=1e-4)
    assert report.kept_zeros == (round(0.8 * (64 * 256 + 256 * 10)) if method == "obert" else 0)
    if method == "obert":
        assert all(not (report.masks[name] & ~mask).any() for name, mask in held.items())
    assert isinstance(model[0].weight, nn.Parameter)


def test_the_trainer(root, names, tmp_path, monkeypatch):
    script = block_with(root, "TrainingArguments")
    assert len(lines_of(script)) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    exec(block_with(root, "for batch in batches"), names)
    exec(script, names)
    report = names["report"]
    assert (report.method, len(report.layers)) == ("movement", 12)
    assert report.total.measured == pytest.approx(0.95, abs=1e-4)


def test_lightning(root, names):
    lightning = pytest.importorskip("lightning")
    exec(block_with(root, "for batch in batches"), names)
    exec(block_with(root, "import lightning"), names)
    module = names["Pruned"]()
    module.model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    trainer = lightning.Trainer(max_steps=60, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.fit(module, torch.utils.data.DataLoader(names["batches"], batch_size=None))
    assert module.pruner.steps == 60
    assert module.pruner.finish().total.measured == pytest.approx(0.95, abs=1e-4)


def test_the_teacher(root, names):
    names["teacher"] = nn.Linear(64, 10)
    exec(block_with(root, "distillation_loss"), names)
    assert names["model"][0].weight.grad.abs().sum() > 0
    assert names["teacher"].weight.grad is None
