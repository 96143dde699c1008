"""The memory that a job may use: by control groups of either version, or as SLURM says."""

import pytest
import torch

from obert.foundation import memory
from obert.foundation.memory import allowance, free_memory

GB = 10**9


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes control groups, and says which one this process is in."""
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN", tmp_path / "own")
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for folder, content in files.items():
            path = tmp_path / "cgroup" / folder.replace("__", "/")
            path.mkdir(parents=True, exist_ok=True)
            for name, text in content.items():
                (path / name).write_text(text)

    return write


V1 = "8:pids:/\n4:memory:/slurm/job_1/step_0/task_0\n0::/\n"


def first(limit, used, peak, killed=0):
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.max_usage_in_bytes": f"{peak}\n",
        "memory.stat": f"cache 1\ntotal_cache {5 * GB}\ntotal_rss {used}\n",
        "memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {killed}\n",
    }


def second(limit, used, peak, killed=0):
    return {
        "memory.max": f"{limit}\n",
        "memory.peak": f"{peak}\n",
        "memory.stat": f"anon {used}\nfile {5 * GB}\n",
        "memory.events": f"low 0\noom 1\noom_kill {killed}\n",
    }


def test_the_narrowest_group_counts(groups):
    unlimited = first(9223372036854771712, GB, 2 * GB, killed=1)
    groups(
        V1,
        memory__slurm__job_1=first(8 * GB, GB, 2 * GB),
        memory__slurm__job_1__step_0=first(3 * GB, GB, 2 * GB),
        memory__slurm__job_1__step_0__task_0=unlimited,
        memory__slurm=unlimited,
    )
    assert allowance() == memory.Allowance(3 * GB, GB, 2 * GB, 1)
    assert free_memory(torch.device("cpu")) <= 2 * GB


def test_groups_of_the_second_version(groups):
    groups("0::/job/step\n", job=second(4 * GB, 3 * GB, 4 * GB), job__step=second("max", GB, GB))
    assert allowance() == memory.Allowance(4 * GB, 3 * GB, 4 * GB, 0)
    assert free_memory(torch.device("cpu")) <= GB


def test_a_container_sees_its_group_as_the_root(groups, tmp_path):
    groups("0::/../../outside\n")
    for name, text in second(4 * GB, GB, GB).items():
        (tmp_path / "cgroup").mkdir(exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    assert allowance().limit == 4 * GB


def test_where_slurm_has_no_groups_it_counts_itself(groups, monkeypatch):
    groups("0::/\n")
    assert allowance() is None
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "3000")
    assert allowance().limit == 3000 * 2**20
    assert 0 < allowance().used < 3000 * 2**20
