"""No power cut loses a file that was dropped durably, nor a result that could be seen."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from fluxdrop.files.folders import Folders
from fluxdrop.files.layout import Root
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs import folder_pool
from fluxdrop.jobs.claim import claim
from fluxdrop.jobs.parts import divide
from support import jobs
from support.audit import audit
from support.daemons import PATIENCE, fluxdrop, started
from support.disk_images import FILESYSTEMS, missing
from support.needs import GENERATES, JULIA
from support.power_cuts import cut_power, lives
from support.published import in_child, publishing

CUTS = 20
SEED = "fluxdrop"

why_not = cache(missing)


def test_lives_are_complete() -> None:
    """What is lived through on each filesystem comes to the cuts that were asked for, with both engines
    and with prompts where they can be had."""
    chosen = lives(CUTS, julia=True, generation=True)

    assert CUTS == sum(life.cuts for life in chosen)
    assert {"julia", "onnxruntime"} == {life.engine for life in chosen}
    assert {"png", "photo", "bad", "prompt", "several"} == {
        kind for life in chosen for kind in life.kinds
    }


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_power_cuts(filesystem: str) -> None:
    """After a power cut at any instant each file that was dropped durably before it is done once, each
    result that could be seen before is the same, and nothing is torn or left over."""
    if reason := why_not():
        pytest.skip(reason)
    chosen = lives(CUTS, julia=JULIA is not None, generation=GENERATES)

    (done,) = cut_power([filesystem], chosen, SEED, lambda: None)

    assert (CUTS, []) == (done.cuts, done.faults)


def test_no_folder_moves(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """On btrfs no folder of a job is ever renamed: that can be lost, and what was moved into it since be kept, or the
    filesystem come to a log that it cannot read."""
    monkeypatch.setattr(folder_pool, "filesystem_of", lambda _path: "btrfs")

    def live() -> int:
        moved: list[str] = []

        def note(event: str, arguments: tuple[object, ...]) -> None:
            if event == "os.rename" and os.path.isdir(str(arguments[0])):  # noqa: PTH112
                moved.append(str(arguments[0]))

        sys.addaudithook(note)
        with publishing(root) as publisher:
            # Many are synced together with all of the filesystem.
            for _ in range(2):
                folders = [_claimed(root, f"{number}.txt") for number in range(30)]
                requests = [PromptParameters(prompt="a"), PromptParameters(prompt="b")]
                parts = divide(jobs.job_in(folders[0]), requests)
                folders += [part.folder for part in parts]
                publisher.publish([jobs.done(jobs.job_in(folder)) for folder in folders])
        assert moved == []
        return len(list(root.outputs.rglob("*.json")))

    assert 62 == in_child(live)


def test_index_and_a_name_lost(root: Root, samples: Path) -> None:
    """A plan whose names are not all on the disk is carried out, though its record is there already and
    the index has to be made anew."""
    settings = {"engine": "onnxruntime", "settle_seconds": 0.1}
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    # The first passing is at the start, with nothing to publish.
    with started(root, "--once", failpoint="folders-synced:2", **settings) as daemon:
        assert -signal.SIGKILL == daemon.process.wait(PATIENCE)
    for path in root.state.glob("jobs.sqlite3*"):
        path.unlink()
    (root.generated / "ring.png").unlink()

    fluxdrop("run", "--root", root.path, "--once", **settings)

    original = (samples / "round_ring_01.png").read_bytes()
    digest = hashlib.sha256(original).hexdigest()
    audit(root, {digest: ("ring.png", True)}, {}, {})


def _claimed(root: Root, name: str) -> Path:
    (root.inbox / name).write_text(f"input {name}")
    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, name, lambda _: True)
    assert job is not None
    return job.folder
