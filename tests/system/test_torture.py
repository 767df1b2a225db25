"""Nothing is lost, whatever dies and whenever."""

from __future__ import annotations

import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from fluxdrop import failpoints
from fluxdrop.files.layout import Root
from support.daemons import PATIENCE, ends, failures, fluxdrop, results, serving, started
from support.torture import OF_CLUSTERS, Campaign, campaigns, torture, what_is_here

SEED = "fluxdrop"
SETTINGS = {"engine": "onnxruntime", "settle_seconds": 0.1}

CAMPAIGNS = campaigns(300, **what_is_here())


def test_campaigns_are_complete() -> None:
    """What is tortured here comes to 300 kills and, where all can be had, to every failpoint but those of clusters."""
    points = {point for campaign in CAMPAIGNS for point in campaign.points}

    assert sum(campaign.kills for campaign in CAMPAIGNS) >= 300
    if all(what_is_here().values()):
        assert set(failpoints.POINTS) - set(OF_CLUSTERS) == points


def test_every_point_is_named_once() -> None:
    """The list of points is what the code passes, each at one place."""
    package = Path(failpoints.__file__).parent
    passed = [
        name
        for path in package.rglob("*.py")
        for name in re.findall(r'failpoints\.reach\("([^"]+)"\)', path.read_text())
    ]

    assert sorted(failpoints.POINTS) == sorted(passed)


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_torture(tmp_path: Path, campaign: Campaign) -> None:
    """After SIGKILLs at each failpoint and at random, every input has one result, whole."""
    (done,) = torture([campaign], tmp_path, SEED, lambda: None)

    assert done.kills >= campaign.kills


def kill_at(root: Root, failpoint: str) -> None:
    """Have a daemon on *root* die at *failpoint*."""
    with started(root, "--once", failpoint=failpoint, **SETTINGS) as daemon:
        assert -signal.SIGKILL == daemon.process.wait(PATIENCE)


@pytest.mark.parametrize(
    ("point", "stage"), [("decoding-begun", "preprocess"), ("prediction-begun", "predict")]
)
def test_what_the_daemon_dies_of(root: Root, samples: Path, point: str, stage: str) -> None:
    """A picture over which the daemon itself died three times is set aside, and it alone."""
    for number in range(6):
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / f"{number}.png")
    kills = 0
    while not failures(root):
        kill_at(root, point)
        kills += 1

    fluxdrop("run", "--root", root.path, "--once", **SETTINGS)

    # At the first death it may have been at another stage, beside the one whose fault it was.
    assert 4 <= kills <= 5
    (error,) = failures(root).values()
    name = error["source"]["file"]
    assert (stage, "crash") == (error["error"]["stage"], error["error"]["kind"])
    assert error["attempts"] >= 3
    assert f"{name} was in hand each time when the daemon died" in error["error"]["message"]
    assert (samples / "round_ring_01.png").read_bytes() == (root.failed / name).read_bytes()
    assert 5 == len(results(root))


@pytest.mark.parametrize("point", ["job-in-index", "record-written", "name-given"])
def test_deaths_that_are_nobodys_fault(root: Root, samples: Path, point: str) -> None:
    """However often the daemon is killed over waiting or finished jobs, none is set aside."""
    rng = random.Random(point)
    for number in range(3):
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / f"{number}.png")
    for _ in range(4):
        kill_at(root, f"{point}:{rng.randint(1, 2)}")

    fluxdrop("run", "--root", root.path, "--once", **SETTINGS)

    assert (3, {}) == (len(results(root)), failures(root))


def test_second_daemon_waits_for_nothing(root: Root, samples: Path) -> None:
    """A second daemon names the first one's pid, touches nothing, and serves when that was killed."""
    with serving(root, **SETTINGS) as daemon:
        second = fluxdrop("run", "--root", root.path, **SETTINGS)
        shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
        daemon.wait_for_ends(1)
        daemon.process.kill()
        daemon.process.wait()
    third = fluxdrop("run", "--root", root.path, "--once", **SETTINGS)

    assert 2 == second.returncode
    assert f"already served by the daemon with pid {daemon.process.pid}" in second.stderr
    assert (0, 1) == (third.returncode, len(ends(root)))
