"""Odd but possible input: each works, or ends in one message that says what to do."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from obert.experiment.plan import Plan
from obert.foundation.errors import UserError


def written(path: Path, **changes) -> Path:
    content = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")
    return path


def test_a_seed_below_zero_is_one_message(root, tmp_path):
    with pytest.raises(UserError) as error:
        Plan.load(written(tmp_path / "c.yaml", seeds=[-1]))
    assert str(error.value).splitlines() == [
        f"{tmp_path}/c.yaml, key 'seeds.0': Input should be greater than or equal to 0 (found -1)"
    ]


def test_no_seed_at_all_is_told(root, tmp_path):
    with pytest.raises(UserError, match=r"key 'seeds': .*at least 1 item"):
        Plan.load(written(tmp_path / "c.yaml", seeds=[]))


def test_a_database_with_two_slashes_is_refused_with_the_right_form(root, tmp_path):
    with pytest.raises(UserError, match=r"key 'tracking_uri': .*sqlite:///<path>"):
        Plan.load(written(tmp_path / "c.yaml", tracking_uri="sqlite://x.db"))
    Plan.load(written(tmp_path / "c.yaml", tracking_uri="sqlite:////somewhere/x.db"))


def test_a_configuration_with_a_space_in_its_name_is_planned(root, tmp_path):
    assert len(Plan.load(written(tmp_path / "my smoke.yaml"))) == len(Plan.load("configs/smoke.yaml"))


def test_another_folder_is_told_and_what_to_do(root, tmp_path, monkeypatch):
    shutil.copy("configs/smoke.yaml", tmp_path / "smoke.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=f"no folder configs/recipes below {re.escape(str(tmp_path))}.*project's folder"
    ):
        Plan.load("smoke.yaml")


def test_commands_of_the_workflow_quote_the_configuration(root):
    """A name with a space is one argument."""
    commands = [line for path in Path("workflow/rules").glob("*.smk") for line in path.read_text().splitlines()]
    named = [match for line in commands for match in re.findall(r"--config \{([^}]*)\}", line) if "python -m" in line]
    assert len(named) >= 4
    assert all(name.endswith(":q") for name in named)
