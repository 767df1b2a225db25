"""Results that requests name, and jobs' folders, in which somebody put something else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import FAULT, place
from fluxdrop.jobs.job import OPTIONS, TENSOR, JobOptions
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.requests.messages import ReplayRequest, answer_to, ask
from fluxdrop.resources import models_folder
from support.daemons import failures, fluxdrop, results
from support.desk import QUICK, Desk, done_job


def swap_folder(root: Root) -> None:
    secret = root.path.parent / "secret"
    (root.outputs / "sub").rename(secret)
    (root.outputs / "sub").symlink_to(secret)


def swap_file(root: Root) -> None:
    (root.outputs / "sub/cat.png").unlink()
    (root.outputs / "sub/cat.png").symlink_to("/etc/hostname")


def fifo_for_file(root: Root) -> None:
    (root.outputs / "sub/cat.png").unlink()
    os.mkfifo(root.outputs / "sub/cat.png")


def fifo_for_record(root: Root) -> None:
    (root.outputs / "sub/cat.json").unlink()
    os.mkfifo(root.outputs / "sub/cat.json")


def sparse_record(root: Root) -> None:
    os.truncate(root.outputs / "sub/cat.json", 1 << 40)


def sparse_file(root: Root) -> None:
    os.truncate(root.outputs / "sub/cat.png", 1 << 40)


SPOILED = [swap_folder, swap_file, fifo_for_file, fifo_for_record, sparse_record, sparse_file]


@pytest.mark.parametrize("spoil", SPOILED)
def test_spoiled_results(root: Root, desk: Desk, spoil: Callable[[Root], None]) -> None:
    """Whoever can write outputs/ leads a replay to no file elsewhere and holds it up with none."""
    first = done_job(root, "sub/cat.png")
    spoil(root)
    asked = ask(root, ReplayRequest(first))
    desk.step()

    answer = answer_to(root, asked)
    assert answer is not None
    assert answer.kind in ("record", "replay")
    assert ([], []) == (desk.accepted, list(root.work.iterdir()))


def spoil_tensor(folder: Path) -> None:
    (folder / OPTIONS).write_bytes(msgspec.json.encode(JobOptions(has_tensor=True)))
    os.mkfifo(folder / TENSOR)


def spoil_request(folder: Path) -> None:
    os.mkfifo(folder / OPTIONS)


def spoil_input(folder: Path) -> None:
    place(folder, "ring.png").unlink()
    os.mkfifo(place(folder, "ring.png"))


def spoil_fault(folder: Path) -> None:
    (folder / FAULT).write_bytes(b"caf\xe9")


def spoil_fault_by_fifo(folder: Path) -> None:
    os.mkfifo(folder / FAULT)


def spoil_model(folder: Path) -> None:
    bundle = shutil.copytree(models_folder() / "round-or-angular", folder.parents[2] / "inbox/.m")
    (folder / OPTIONS).write_bytes(msgspec.json.encode(JobOptions(model=str(bundle))))


IN_WORK = [spoil_tensor, spoil_request, spoil_input, spoil_fault, spoil_fault_by_fifo, spoil_model]


@pytest.mark.parametrize("spoil", IN_WORK)
def test_spoiled_work(root: Root, samples: Path, spoil: Callable[[Path], None]) -> None:
    """A job's folder of a backup or of an older version, whatever lies in it, fails, is left alone or is set aside,
    and neither ends the daemon nor holds it up.
    """
    folder = root.work / new_job_id()
    folder.mkdir()
    shutil.copyfile(samples / "round_ring_01.png", place(folder, "ring.png"))
    spoil(folder)
    shutil.copyfile(samples / "round_circle_01.png", root.inbox / "circle.png")
    ended = fluxdrop("run", "--once", "--root", root.path, **QUICK)

    assert "Traceback" not in ended.stderr
    assert ["circle.json"] == list(results(root))
    left = [path.name for path in [*root.work.iterdir(), *root.refused.glob("*")]]
    assert (left, list(failures(root))) in [([folder.name], []), ([], ["ring.png.error.json"])]
