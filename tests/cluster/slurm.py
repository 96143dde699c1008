"""A SLURM of one node, this machine, with accounting: Debian's packages, started in a folder of its own.

munge, mariadb, slurmdbd, slurmctld and slurmd run as this user, with ports and sockets of their own, and end with the
block. Memory is held to with control groups, as clusters do it, so the user must be root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "mariadb", "slurmdbd", "slurmctld", "slurmd", "sacct")
CGROUP = Path("/sys/fs/cgroup/memory")
PATH = f"{os.environ['PATH']}:/usr/sbin:/usr/bin"
MEMORY_MB = 8000  # of the node, as SLURM is told

SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
ReturnToService=2
OverTimeLimit=0
KillWait=5
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
CGROUP_CONF = """
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=yes
AllowedSwapSpace=0
"""


def missing() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return (
            f"{', '.join(absent)} not installed (Debian: slurmctld slurmd slurmdbd slurm-client munge mariadb-server)"
        )
    if os.geteuid() != 0:
        return "SLURM is started as root here"
    if not os.access(CGROUP, os.W_OK):
        return f"no writable {CGROUP}, with which SLURM holds jobs to their memory"
    return None


@dataclass(frozen=True)
class Slurm:
    """A running SLURM.

    Attributes:
        environment: variables with which its commands find it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def jobs(self, fields: str) -> list[list[str]]:
        """Fields of sacct, separated by commas, of every job so far in the order of submission."""
        text = self.run("sacct", "-X", "-n", "-P", "--starttime", "now-1day", f"--format={fields}")
        return [line.split("|") for line in text.splitlines()]


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A SLURM, until the end of the block.

    Args:
        folder: an empty one; of a short name, as the names of sockets have a limit.
    """
    mariadb, ctld, slurmd, dbd = _free_ports(4)
    host = socket.gethostname().partition(".")[0]
    node = f"node{os.getpid()}"  # names control groups, too
    facts = {"folder": folder, "host": host, "node": node, "cpus": os.cpu_count(), "memory": MEMORY_MB}
    facts |= {"ctld": ctld, "slurmd": slurmd, "dbd": dbd, "mariadb": mariadb}
    for name, text in {"slurm": SLURM_CONF, "slurmdbd": SLURMDBD_CONF, "cgroup": CGROUP_CONF}.items():
        path = folder / f"{name}.conf"
        path.write_text(text.format(**facts))
        path.chmod(0o600 if name == "slurmdbd" else 0o644)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    # Snakemake's executor starts `srun` without SLURM_CONF, as the file is in /etc on a cluster.
    wrapper = folder / "bin" / "srun"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n')
    wrapper.chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{wrapper.parent}:{PATH}"}
    running = Slurm(folder, environment)

    def start(*command: str) -> subprocess.Popen:
        with (folder / f"{Path(command[0]).name}.out").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(_end, process)
        return process

    def ask(*command: str) -> Callable[[], bool]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return lambda: subprocess.run(command, env=environment, check=False, **quiet).returncode == 0

    with ExitStack() as stack:
        key, pipe = folder / "munge.key", folder / "munge.socket"
        start(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={pipe}",
            "--num-threads=2",
            f"--pid-file={folder}/munge.pid",
            f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge.seed",
        )
        data, sql = folder / "mariadb", folder / "mariadb.socket"
        running.run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--user=root",
            "--auth-root-authentication-method=normal",
        )
        start(
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={sql}",
            f"--port={mariadb}",
            "--user=root",
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=64M",
            f"--pid-file={folder}/mariadb.pid",
        )
        client = ("mariadb", "--no-defaults", f"--socket={sql}", "--user=root", "-e")
        _until(ask(*client, "SELECT 1"), "mariadbd", folder)
        running.run(
            *client,
            "CREATE DATABASE slurm; CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; "
            "CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; "
            "GRANT ALL ON slurm.* TO slurm@'127.0.0.1'; GRANT ALL ON slurm.* TO slurm@localhost",
        )
        start("slurmdbd", "-D")
        _until(ask("sacctmgr", "-n", "list", "cluster"), "slurmdbd", folder)
        _until(ask("sacctmgr", "-i", "add", "cluster", "one"), "sacctmgr", folder)
        running.run("sacctmgr", "-i", "add", "account", "lab", "cluster=one")
        running.run("sacctmgr", "-i", "add", "user", "root", "account=lab", "cluster=one")
        start("slurmctld", "-D")
        stack.callback(_remove_groups, CGROUP / f"slurm_{node}")
        start("slurmd", "-D", "-N", node)
        _until(lambda: "idle" in running.run("sinfo", "-h", "-o", "%t"), "slurmd", folder)
        stack.callback(_end_jobs, running)
        yield running


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _until(holds: Callable[[], bool], what: str, folder: Path, seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except RuntimeError:
            pass
        if time.monotonic() > end:
            logs = "\n".join(
                f"{log}:\n{log.read_text()[-2000:]}"
                for log in sorted(folder.glob(f"{what}*.*"))
                if log.suffix in (".log", ".out")
            )
            raise RuntimeError(f"{what} has not come up in {seconds:g} s\n{logs}")
        time.sleep(0.2)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_jobs(running: Slurm) -> None:
    running.run("scancel", "--user=root")
    _until(lambda: not running.run("squeue", "-h"), "squeue", running.folder)


def _remove_groups(folder: Path) -> None:
    """Remove the control groups that jobs leave when slurmd is ended first: a later job of the number would fail."""
    for group, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # a process that does not end
            Path(group).rmdir()
