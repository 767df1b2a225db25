"""What is asked through .fluxdrop/requests/ is done once, or refused with an answer."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.store import Row
from fluxdrop.requests import reader
from fluxdrop.requests.messages import (
    MAX_JOBS,
    CancelRequest,
    ModelRequest,
    ReplayRequest,
    Request,
    answer_to,
    ask,
    ask_and_wait,
    ask_to_cancel,
)
from fluxdrop.requests.replay import plan_replay, request_replay
from fluxdrop.requests.submission import wait_for_replays
from fluxdrop.resources import models_folder
from support import jobs
from support.daemons import fluxdrop, results, serving, started
from support.desk import QUICK, Desk, done_job, nothing, rows

pytestmark = pytest.mark.slow


def leave(root: Root, request: Request, name: str = "", user: int = -1) -> str:
    """Leave *request* as *user* does, or this one; its id."""
    name = name or new_job_id()
    path = root.requests / f"{name}.request.json"
    path.write_bytes(msgspec.json.encode(request))
    if user != -1:
        os.chown(path, user, -1)
    return name


def kind_of_answer(root: Root, name: str) -> str | None:
    answer = answer_to(root, name)
    return answer.kind if answer else None


def test_replay(root: Root, desk: Desk) -> None:
    """A request names a job and how to do it again; the daemon makes the folder of copies."""
    first = done_job(root, "sub/cat.txt")
    asked = ask(root, ReplayRequest(first, "predict"))
    desk.step()

    (folder,) = desk.accepted
    job = jobs.job_in(folder)
    assert (root.work / asked, "sub/cat.png", first) == (folder, job.source, job.options.replay_of)
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
    """Of many requests for models one is handed on, and the next when it was told how that went; those for the
    same model are told the same."""
    first = ask(root, ModelRequest("round-or-angular"))
    desk.step()
    asked = [ask(root, ModelRequest("round-or-angular")) for _ in range(3)]
    desk.step()
    waiting = len(desk.used), len(desk.requests)
    desk.told[0](None)
    desk.step()
    desk.told[1](FluxdropError("no", kind="model"))

    assert ((1, 3), 2) == (waiting, len(desk.used))
    assert ["", "model", "model", "model"] == [
        kind_of_answer(root, name) for name in [first, *asked]
    ]
    assert "round-or-angular\n" == root.model_in_use.read_text()


def test_later_model(root: Root, desk: Desk) -> None:
    """Of requests for several models the last is carried out, and whoever asked for another one is told so, or that
    there is none."""
    shutil.copytree(models_folder() / "round-or-angular", root.models / "other")
    names = ("round-or-angular", "other", "nothing")
    asked = [
        leave(root, ModelRequest(name), f"20260101T000000-0000000{number}")
        for number, name in enumerate(names)
    ]
    desk.step()

    assert ["superseded", None, "model"] == [kind_of_answer(root, name) for name in asked]
    assert (["other"], []) == (desk.used, list(root.requests.iterdir()))


@pytest.mark.parametrize(
    "flood", [ModelRequest("round-or-angular"), ReplayRequest("nothing"), CancelRequest(["x"])]
)
def test_flood_of_one_user(root: Root, desk: Desk, flood: Request) -> None:
    """However many requests one user leaves, and however old they say they are, those of another are taken up in the
    same turn, and of this one each cancelling in one of the next turns."""
    first = done_job(root)
    for number in range(5000):
        leave(root, flood, f"19990101T000000-{number:08x}", user=12345)
    leave(root, CancelRequest(["last"]), "19990101T000001-00000000", user=12345)
    asked = [leave(root, ReplayRequest(first)), leave(root, CancelRequest(["mine"]))]
    desk.step()
    made, cancelled = [folder.name for folder in desk.accepted], [*desk.cancelled]
    answer = kind_of_answer(root, asked[1])
    for _ in range(6):
        desk.step()

    assert ([asked[0]], True, "") == (made, "mine" in cancelled, answer)
    assert "last" in desk.cancelled


def test_room_of_one_user(root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays for which their user has no room are done when there is some; until then they count as waiting."""
    monkeypatch.setattr(reader, "_MAX_WAITING", 50)
    first = done_job(root)
    for number in range(120):
        leave(root, ReplayRequest(first), f"20260101T000000-{number:08x}", user=12345)
    desk.room = {True: 0, False: 0}
    for _ in range(5):
        desk.step()
    waiting = len(desk.requests), len(desk.requests._known)
    desk.room = {True: 0, False: 120}
    for _ in range(20):
        desk.step()

    assert (120, 50) == waiting
    assert 120 == len(desk.accepted)
    assert (0, []) == (len(desk.requests), list(root.requests.iterdir()))


@pytest.mark.parametrize("error", [ValueError("embedded null byte"), RecursionError()])
def test_defect_over_one_request(
    root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What nobody foresaw over one request refuses that one as internal, and the others are done."""
    first, spoiled = done_job(root, "a.png"), done_job(root, "b.png")
    asked = [leave(root, ReplayRequest(name)) for name in (spoiled, first)]

    def failing(root: Root, row: Row, **facts: Any) -> Any:
        if row.id == spoiled:
            raise error
        return plan_replay(root, row, **facts)

    monkeypatch.setattr(reader, "plan_replay", failing)
    desk.step()

    assert ["internal", None] == [kind_of_answer(root, name) for name in asked]
    assert ([asked[1]], 0) == ([folder.name for folder in desk.accepted], len(desk.requests))


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_disk_error_over_one_request(
    root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An error of the disk over one result holds up the replay of that one alone, and a right that is missing refuses
    it."""
    first, spoiled = done_job(root, "a.png"), done_job(root, "b.png")
    asked = [leave(root, ReplayRequest(name)) for name in (spoiled, first)]

    def failing(root: Root, row: Row, **facts: Any) -> Any:
        if row.id == spoiled:
            raise OSError(number, os.strerror(number), "b.png")
        return plan_replay(root, row, **facts)

    monkeypatch.setattr(reader, "plan_replay", failing)
    with suppress(OSError):
        desk.step()
    kind = kind_of_answer(root, asked[0])
    monkeypatch.undo()
    desk.step()

    accepted = [folder.name for folder in desk.accepted]
    if number == errno.EIO:
        assert (None, [asked[1], asked[0]]) == (kind, accepted)
    else:
        assert ("replay", [asked[1]]) == (kind, accepted)


def test_answers_that_are_none(root: Root) -> None:
    """Whatever lies in answers/, a daemon starts."""
    (root.answers / "folder").mkdir()
    (root.answers / "folder/file").touch()

    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    assert [] == list(root.answers.iterdir())


def test_many_to_cancel(root: Root) -> None:
    """However many jobs are to be cancelled, each request stays small enough to be read."""
    ids = [f"20261126T120000-{number:08x}-{number}" for number in range(2 * MAX_JOBS + 1)]
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


@pytest.mark.parametrize("point", ["replay-made", "replay-renamed", "file-written"])
def test_killed_over_a_replay(root: Root, samples: Path, point: str) -> None:
    """A daemon that is killed while it makes a job of a request leaves one that does it, once."""
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    (first,) = rows(root)
    asked = request_replay(root, plan_replay(root, first))
    with started(root, "--once", failpoint=point, **QUICK) as daemon:
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
