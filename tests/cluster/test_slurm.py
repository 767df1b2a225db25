"""examples/cluster/slurm.sbatch: a job of Slurm that is a host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

import hosts
from fluxdrop.cluster import starting
from hosts import Host
from support.daemons import PATIENCE
from support.inside import Inside

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "cluster" / "slurm.sbatch"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
_CONFIG = """
ClusterName=test
SlurmctldHost=host1(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
KillWait=5
NodeName=host1 NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=host1 Default=YES State=UP
"""


def test_script() -> None:
    """The script is one for bash, and names only what fluxdrop reads: its variables and the module that starts Ray."""
    text = SCRIPT.read_text()
    variables = set(re.findall(r"FLUXDROP_CLUSTER_\w+", text))

    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert {"FLUXDROP_CLUSTER_TOKEN", "FLUXDROP_CLUSTER_FOLDER"} == variables
    assert variables <= set(starting.VARIABLES.values())
    assert f"-m {starting.__name__} --station" in text


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until *is_so*."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@contextmanager
def slurm(node: Host, folder: Path) -> Iterator[dict[str, str]]:
    """A Slurm of one node on *node*; yields the environment in which its commands find it."""
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(folder=folder))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environ = {"SLURM_CONF": str(config)}
    node.run("install", "--directory", "--owner=munge", "/run/munge")
    with (folder / "slurm.log").open("wb") as log, ExitStack() as ends:

        def keep(process: Inside) -> None:
            ends.callback(process.wait)
            ends.callback(process.kill)

        as_munge = ("setpriv", "--reuid=munge", "--regid=munge", "--init-groups")
        keep(node.start(*as_munge, "munged", "--foreground", stdout=log, stderr=log))
        wait_until(
            lambda: node.run("munge", "-n", check=False).returncode == 0, "munged does not answer"
        )
        for program in ("slurmctld", "slurmd"):
            keep(node.start(program, "-D", env=environ, stdout=log, stderr=log))
        wait_until(
            lambda: "idle" in node.run("sinfo", env=environ, check=False).stdout, "no node is idle"
        )
        yield environ


def raylets(node: Host) -> list[psutil.Process]:
    """Ray's processes on *node*."""
    return node.processes(lambda words: words != [] and Path(words[0]).name == "raylet")


def test_job(tmp_path: Path) -> None:
    """A job is a host of the cluster while it runs; when it is cancelled, nothing of it is left."""
    hosts.needed()
    if missing := [name for name in _PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"Slurm is not installed: {', '.join(missing)}")
    output = tmp_path / "job.out"
    with hosts.network(tmp_path, 1) as made:
        (node,) = made.hosts
        made.station.start_ray()
        made.station.wait_for_ray()
        with slurm(node, tmp_path) as environ:
            asked = {
                "FLUXDROP_CLUSTER_TOKEN": str(node.member.token),
                "FLUXDROP_PYTHON": sys.executable,
            }
            node.run("sbatch", f"--output={output}", SCRIPT, "station", env=environ | asked)
            wait_until(
                lambda: output.exists() and "Ray runtime started" in output.read_text(),
                "no host was started",
            )
            running = len(raylets(node))
            node.run("scancel", "1", env=environ)
            wait_until(lambda: not raylets(node), "Ray is left")

    assert 1 == running
