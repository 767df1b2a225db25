"""What is asked through .fluxdrop/requests/ is done once, or refused with an answer."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import jobs
import pytest
from conftest import fluxdrop, results, serving, started
from desk import QUICK, Desk, done_job, nothing, rows

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.replay import plan_replay, request_replay
from fluxdrop.jobs.requests import (
    MOST_JOBS,
    ModelRequest,
    ReplayRequest,
    answer_to,
    ask,
    ask_and_wait,
    ask_to_cancel,
)
from fluxdrop.jobs.submission import wait_for_replays
from fluxdrop.layout import Root
from fluxdrop.resources import models_folder


def test_replay(root: Root, desk: Desk) -> None:
    """A request names a job and how to do it again; the daemon makes the folder of copies."""
    first = done_job(root, "sub/cat.txt")
    asked = ask(root, ReplayRequest(first, "predict"))
    desk.step()

    (folder,) = desk.accepted
    job = jobs.job_in(folder)
    assert (root.work / asked, "sub/cat.png", first) == (folder, job.source, job.request.replay_of)
    assert (1, f"image of {first}") == (job.input.stat().st_nlink, job.input.read_text())
    assert f"tensor of {first}" == job.tensor.read_text()
    assert ([], []) == (list(root.requests.iterdir()), list(root.answers.iterdir()))


def test_room(root: Root, desk: Desk) -> None:
    """Requests wait for room, prompts apart from pictures, and each becomes one job."""
    prompt, picture = done_job(root, "a.txt"), done_job(root, "b.png")
    for job_id in (prompt, prompt, picture, picture):
        ask(root, ReplayRequest(job_id))
    desk.room = {True: 0, False: 1}
    desk.step()
    waiting = len(desk.requests), [jobs.job_in(folder).kind for folder in desk.accepted]
    desk.room = {True: 10, False: 10}
    desk.step()

    # What is made together may be more than there was room for, by less than a batch.
    assert (2, ["picture", "picture"]) == waiting
    assert 4 == len({folder.name for folder in desk.accepted})
    assert (0, []) == (len(desk.requests), list(root.requests.iterdir()))


def test_one_model_at_a_time(root: Root, desk: Desk) -> None:
    """Of many requests for models one is handed on, and the next when it was told how that went."""
    asked = sorted(ask(root, ModelRequest("round-or-angular")) for _ in range(3))
    desk.step()
    first = len(desk.used), len(desk.requests)
    desk.told[0](None)
    desk.step()
    desk.told[1](FluxdropError("no", kind="model"))

    assert ((1, 2), 2) == (first, len(desk.used))
    assert ["", "model", None] == [
        answer.kind if (answer := answer_to(root, name)) else None for name in asked
    ]
    assert "round-or-angular\n" == root.model_in_use.read_text()


def test_many_to_cancel(root: Root) -> None:
    """However many jobs are to be cancelled, each request stays small enough to be read."""
    ids = [f"20261126T120000-{number:08x}-{number}" for number in range(2 * MOST_JOBS + 1)]
    with serving(root, **QUICK) as daemon:
        ask_to_cancel(root, ids, nothing)
        assert daemon.process.poll() is None

    assert [] == list(root.requests.iterdir())


def refused_model(root: Root) -> list[object]:
    bundle = root.inbox / ".m"
    shutil.copytree(models_folder() / "round-or-angular", bundle)
    return [str(bundle), "../../inbox/.m", "nothing", "x" * 256]


def test_no_model_by_path(root: Root) -> None:
    """A request names installed models alone: neither a replay nor a change takes a path."""
    names = refused_model(root)
    first = done_job(root)
    with serving(root, **QUICK) as daemon:
        for name in names:
            with pytest.raises(FluxdropError):
                ask_and_wait(root, ModelRequest(str(name)), nothing)
        asked = [ask(root, ReplayRequest(first, model=str(name))) for name in names]
        ended = wait_for_replays(root, asked, nothing)
        daemon.stop()

    assert [FluxdropError] * len(names) == [type(end) for end in ended]
    assert not root.model_in_use.exists()
    assert 1 == len(rows(root))


def test_too_large(root: Root, samples: Path) -> None:
    """A replay of what has grown too large since is refused, which ends the wait for it; nothing of it
    is left in work/.
    """
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    with serving(root, max_file_bytes=100, **QUICK):
        ended = fluxdrop("replay", "--all", "--wait", "--root", root.path)

    assert 1 == ended.returncode
    assert "larger than the 100 bytes of max_file_bytes" in ended.stderr
    assert [] == list(root.work.iterdir())


@pytest.mark.parametrize("point", ["request-made", "request-renamed", "file-written"])
def test_killed_over_a_replay(root: Root, samples: Path, point: str) -> None:
    """A daemon that is killed while it makes a job of a request leaves one that does it, once."""
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    (first,) = rows(root)
    asked = request_replay(root, plan_replay(root, first))
    with started(root, "--once", fault=point, **QUICK) as daemon:
        assert -signal.SIGKILL == daemon.process.wait()
    again = fluxdrop("run", "--once", "--root", root.path, **QUICK)

    assert 0 == again.returncode
    assert {first.id, asked} == {row.id for row in rows(root)}
    assert 2 == len(results(root))
    assert ([], []) == (list(root.work.iterdir()), list(root.requests.iterdir()))


def test_request_that_came_back(root: Root, samples: Path) -> None:
    """A request whose file a power cut brought back, when its job has ended, is no second job."""
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    (first,) = rows(root)
    asked = request_replay(root, plan_replay(root, first))
    file = root.requests / f"{asked}.request.json"
    data = file.read_bytes()
    codes = []
    for _ in range(2):
        codes.append(fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode)
        file.write_bytes(data)
    codes.append(fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode)

    assert [0, 0, 0] == codes
    assert (2, 2, []) == (len(rows(root)), len(results(root)), list(root.requests.iterdir()))


def test_answers_stay(root: Root) -> None:
    """An answer is there for whoever asked, however often, until the daemon starts anew."""
    with serving(root, **QUICK) as daemon:
        asked = ask(root, ReplayRequest("nothing"))
        (refused,) = wait_for_replays(root, [asked], nothing)
        answers = [answer_to(root, asked) for _ in range(2)]
        daemon.stop()
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode

    assert isinstance(refused, FluxdropError)
    assert ["There is no job nothing."] * 2 == [
        answer.message if answer else "" for answer in answers
    ]
    assert [] == list(root.answers.iterdir())
