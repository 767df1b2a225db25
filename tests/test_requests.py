"""What is asked through .fluxdrop/requests/, by members of the group and by those who mean no good."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jobs
import msgspec
import pytest
from conftest import ends, failures, fluxdrop, results, serving, started
from members import MEMBER, as_member, folder_for_everybody, group_root, needs_root, umask

from fluxdrop.errors import FluxdropError
from fluxdrop.intake.claim import FAULT, new_job_id, place
from fluxdrop.intake.requests import Requests
from fluxdrop.jobs.job import REQUEST, TENSOR, JobRequest
from fluxdrop.jobs.replay import plan_replay, request_replay
from fluxdrop.jobs.requests import (
    MOST_JOBS,
    CancelRequest,
    ModelRequest,
    ReplayRequest,
    answer_to,
    ask,
    ask_and_wait,
    ask_to_cancel,
)
from fluxdrop.jobs.store import Row, Store
from fluxdrop.jobs.submission import submit_prompt, wait_for_jobs, wait_for_replays
from fluxdrop.layout import Root, holder
from fluxdrop.publish.publisher import Publisher
from fluxdrop.resources import models_folder

QUICK = {"engine": "onnxruntime", "settle_seconds": 0.1, "scan_seconds": 1}


def nothing(_left: int = 0) -> None:
    pass


def done_job(root: Root, source: str = "cat.png") -> str:
    """The id of a job that was done."""
    finished = jobs.ended(jobs.job_in(jobs.claimed(root, source)))
    with closing(Store(root.database)) as store:
        Publisher(root, store).publish([finished])
    return finished.job.id


def row_of(root: Root, job_id: str) -> Row:
    with closing(Store(root.database, read_only=True)) as store:
        row = store.get(job_id)
    assert row is not None
    return row


def rows(root: Root) -> list[Row]:
    """All that ended."""
    with closing(Store(root.database, read_only=True)) as store:
        return store.latest("done", 100) + store.latest("failed", 100)


class Desk:
    """The daemon's side of requests/, stepped by the test; *room* is for how many more jobs."""

    def __init__(self, root: Root, store: Store) -> None:
        self.accepted: list[Path] = []
        self.used: list[str] = []
        self.told: list[Callable[[FluxdropError | None], None]] = []
        self.cancelled: list[str] = []
        self.room = {True: 1_000_000, False: 1_000_000}
        self.most_bytes = 1000
        self.requests = Requests(
            root,
            store,
            accept=self._accept,
            room=lambda is_prompt: self.room[is_prompt] > 0,
            most_bytes=lambda: self.most_bytes,
            use=self._use,
            cancel=self.cancelled.extend,
        )

    def _accept(self, folder: Path) -> None:
        self.accepted.append(folder)
        self.room[jobs.job_in(folder).kind == "prompt"] -= 1

    def _use(self, name: str, told: Callable[[FluxdropError | None], None]) -> None:
        self.used.append(name)
        self.told.append(told)

    def step(self) -> None:
        self.requests._next_look = 0.0
        self.requests.step()


@pytest.fixture
def desk(root: Root) -> Iterator[Desk]:
    with closing(Store(root.database)) as store:
        yield Desk(root, store)


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


def request_file(root: Root, data: bytes) -> str:
    name = new_job_id()
    (root.requests / f"{name}.request.json").write_bytes(data)
    return name


NO_REQUESTS: dict[str, bytes] = {
    "no JSON": b"{",
    "not UTF-8": b'{"type": "cancel", "job_ids": ["\xff"]}',
    "a newer version's": b'{"type": "improve", "job_id": "x"}',
    "with a field of a newer version": b'{"type": "replay", "job_id": "x", "twice": true}',
    "too large": b'{"type": "cancel", "job_ids": []}' + b" " * 65_536,
    "too many jobs": msgspec.json.encode(CancelRequest(["x"] * (MOST_JOBS + 1))),
    "empty": b"",
    "deep": b"[" * 60_000,
}


@pytest.mark.parametrize("data", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_refused(root: Root, desk: Desk, data: bytes) -> None:
    """What is no request is set aside, and its asker answered."""
    asked = request_file(root, data)
    desk.step()

    answer = answer_to(root, asked)
    assert answer is not None
    assert "request" == answer.kind
    assert [data] == [path.read_bytes() for path in root.refused.iterdir()]
    assert [] == list(root.requests.iterdir())


def test_wait_for_what_an_older_daemon_does_not_know(root: Root) -> None:
    """Waiting for a request that the daemon's version does not know ends, with a reason."""
    with serving(root, **QUICK):
        asked = request_file(root, b'{"type": "replay", "job_id": "x", "priority": 1}')
        (ended,) = wait_for_replays(root, [asked], nothing)

    assert isinstance(ended, FluxdropError)
    assert "no request that this fluxdrop understands" in ended.message


def test_rubbish(root: Root, samples: Path) -> None:
    """Whatever lies in requests/, the daemon lives, does its work and has a line in the log for each: the
    rest is set aside, and nothing of it enters work/.
    """
    ids = [new_job_id() for _ in range(4)]
    (root.requests / "x.order.json").mkdir()
    (root.requests / "x.order.json/file").touch()
    (root.requests / f"{ids[0]}.request.json").mkdir()
    os.mkfifo(root.requests / f"{ids[1]}.request.json")
    (root.requests / f"{ids[2]}.request.json").symlink_to("/etc/hostname")
    (root.requests / os.fsdecode(b"\xff\xfe.request.json")).write_bytes(b"{}")
    os.mkfifo(root.requests / "fifo")
    (root.requests / "link").symlink_to(root.path)
    (root.requests / ("y" * 255)).touch()
    # A job as fluxdrop took it before, with a model and an input of the asker's.
    old = root.requests / ids[3]
    old.mkdir()
    shutil.copyfile(samples / "round_ring_01.png", old / "input=ring.png")
    (old / REQUEST).write_bytes(msgspec.json.encode(JobRequest(model=str(root.inbox / ".m"))))
    (root.requests / ".half").write_bytes(b"{")
    with serving(root, **QUICK) as daemon:
        shutil.copyfile(samples / "round_circle_01.png", root.inbox / "circle.png")
        daemon.wait_for_ends(1)
        daemon.wait_until(lambda: len(list(root.requests.iterdir())) == 1, "all set aside")
        answers = [answer_to(root, asked) for asked in ids[:3]]
        assert 0 == daemon.stop()

    told = [line for line in daemon.log() if line["event"] == "request set aside"]
    assert ["circle.json"] == list(results(root))
    assert {} == failures(root)
    assert (9, 9) == (len(told), len(list(root.refused.iterdir())))
    assert ["request"] * 3 == [answer.kind if answer else None for answer in answers]
    assert [".half"] == [path.name for path in root.requests.iterdir()]


def test_rubbish_that_cannot_be_moved(
    root: Root, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be moved is told once and left, and requests go on."""
    (root.requests / "folder/deep").mkdir(parents=True)
    first = done_job(root)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "folder":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    for _ in range(3):
        ask(root, ReplayRequest(first))
        desk.step()

    assert 3 == len(desk.accepted)
    assert ["folder"] == [path.name for path in root.requests.iterdir()]
    assert {"folder"} == desk.requests._stuck


def test_flood(root: Root, desk: Desk) -> None:
    """However much lies in requests/, few of it are remembered and the newest of it are kept."""
    first = done_job(root)
    data = msgspec.json.encode(ReplayRequest(first))
    for number in range(5000):
        (root.requests / f"20261126T120000-{number:08x}.request.json").write_bytes(data)
        (root.requests / f"rubbish {number}").touch()
    desk.room = {True: 0, False: 0}
    for _ in range(4):
        desk.step()

    assert 4096 == len(desk.requests)
    assert 100 >= len(list(root.refused.iterdir()))
    assert 5000 - 4 * 64 == sum(path.name.startswith("rubbish") for path in root.requests.iterdir())


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


def spoil_tensor(folder: Path) -> None:
    (folder / REQUEST).write_bytes(msgspec.json.encode(JobRequest(has_tensor=True)))
    os.mkfifo(folder / TENSOR)


def spoil_request(folder: Path) -> None:
    os.mkfifo(folder / REQUEST)


def spoil_input(folder: Path) -> None:
    place(folder, "ring.png").unlink()
    os.mkfifo(place(folder, "ring.png"))


def spoil_fault(folder: Path) -> None:
    (folder / FAULT).write_bytes(b"caf\xe9")


def spoil_fault_by_fifo(folder: Path) -> None:
    os.mkfifo(folder / FAULT)


def spoil_model(folder: Path) -> None:
    bundle = shutil.copytree(models_folder() / "round-or-angular", folder.parents[2] / "inbox/.m")
    (folder / REQUEST).write_bytes(msgspec.json.encode(JobRequest(model=str(bundle))))


IN_WORK = [spoil_tensor, spoil_request, spoil_input, spoil_fault, spoil_fault_by_fifo, spoil_model]


@pytest.mark.parametrize("spoil", IN_WORK)
def test_spoiled_work(root: Root, samples: Path, spoil: Callable[[Path], None]) -> None:
    """A job's folder of a backup or of an older version, whatever lies in it, fails or is left alone,
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
    left = [path.name for path in root.work.iterdir()]
    assert (left, list(failures(root))) in [([folder.name], []), ([], ["ring.png.error.json"])]


@pytest.fixture
def everywhere() -> Iterator[Path]:
    yield from folder_for_everybody()


@pytest.fixture
def station(everywhere: Path, samples: Path) -> Root:
    """A root that a group may use, with one job done."""
    root = group_root(everywhere)
    shutil.copyfile(samples / "round_ring_01.png", root.inbox / "ring.png")
    shutil.copytree(models_folder() / "round-or-angular", root.models / "mine")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    return root


@needs_root
def test_member(station: Root) -> None:
    """A member of the group submits, has jobs done again, cancels and chooses among the installed
    models, through a daemon of another user.
    """
    (first,) = rows(station)

    def ask_for_all() -> tuple[str, list[Any], list[Any]]:
        ask_and_wait(station, ModelRequest("mine"), nothing)
        asked = request_replay(station, plan_replay(station, first, model="round-or-angular"))
        (replayed,) = wait_for_replays(station, [asked], nothing)
        ask_to_cancel(station, ["nothing"], nothing)
        submitted = submit_prompt(station, "a ring")
        return asked, [replayed.state if isinstance(replayed, Row) else replayed], [submitted.file]

    with serving(station, **QUICK) as daemon:
        asked, states, submitted = as_member(ask_for_all)
        rest = as_member(lambda: [row.id for row in wait_for_jobs(station, [asked], nothing)])
        daemon.stop()

    assert (["done"], ["a-ring.txt"], [asked]) == (states, submitted, rest)
    assert "mine\n" == station.model_in_use.read_text()


@needs_root
def test_member_asks_while_nothing_runs(station: Root) -> None:
    """A member reads the index and leaves requests without a daemon; the next start does them."""
    (first,) = rows(station)
    found = as_member(lambda: [row.id for row in rows(station)])
    holding = as_member(lambda: holder(station))
    with umask(0o077):
        asked = as_member(lambda: request_replay(station, plan_replay(station, first)))
    mode = (station.requests / f"{asked}.request.json").stat().st_mode & 0o777
    ended = fluxdrop("run", "--once", "--root", station.path, **QUICK)

    assert ([first.id], None) == (found, holding)
    # The daemon is neither this user nor root, mostly.
    assert (0o644, 0) == (mode, ended.returncode)
    assert {first.id, asked} == {row.id for row in rows(station)}


@needs_root
def test_member_reads_after_a_kill(station: Root, samples: Path) -> None:
    """A member reads the index that a killed daemon left, with what had ended last."""
    with serving(station, **QUICK) as daemon:
        shutil.copyfile(samples / "round_circle_01.png", station.inbox / "circle.png")
        daemon.wait_until(lambda: len(rows(station)) == 2, "two rows")

    found = as_member(lambda: sorted(row.source for row in rows(station)))

    assert ["circle.png", "ring.png"] == found


def attempts(root: Root) -> dict[str, Callable[[], object]]:
    """What a member is not to get done, by what it is called."""
    request = f"{new_job_id()}.request.json"
    return {
        "settings": lambda: (root.path / "fluxdrop.toml").write_text("shared_root = true\n"),
        "model in use": lambda: root.model_in_use.write_text(str(root.inbox)),
        "model added": lambda: (root.models / "evil").mkdir(),
        "job made": lambda: (root.work / new_job_id()).mkdir(),
        "root renamed": lambda: root.inbox.rename(root.path / "away"),
        "state renamed": lambda: root.state.rename(root.path / "away"),
        "index": lambda: root.database.write_bytes(b""),
        "lock": lambda: root.lock.write_bytes(b"1"),
        "answers": lambda: (root.answers / "x.json").write_bytes(b"{}"),
        "results": lambda: (root.outputs / "ring.json").write_bytes(b"{}"),
        "results removed": lambda: (root.outputs / "ring.json").unlink(),
        "requests listed": lambda: list(root.requests.iterdir()),
        "another's request": lambda: (root.requests / request).unlink(),
    }


@needs_root
@pytest.mark.parametrize("name", attempts(Root(Path("/nowhere"))))
def test_what_a_member_may_not(station: Root, name: str) -> None:
    """A member changes neither settings, models, state nor results, and sees nobody else's requests."""
    attempt = attempts(station)[name]
    for path in ("fluxdrop.toml", *(f".fluxdrop/requests/{new_job_id()}.request.json",)):
        (station.path / path).touch()

    def tried() -> str:
        assert os.geteuid() == MEMBER
        try:
            attempt()
        except (PermissionError, FileNotFoundError) as error:
            return type(error).__name__
        return "done"

    before = sorted(map(str, station.path.rglob("*")))
    told = as_member(tried)

    assert told in ("PermissionError", "FileNotFoundError")
    assert ("FileNotFoundError" == told) == (name == "another's request")
    assert before == sorted(map(str, station.path.rglob("*")))


@needs_root
def test_forged_requests(station: Root, samples: Path) -> None:
    """For some seconds a member floods requests/ with forged requests, folders, links and pipes, and swaps
    them for one another; the daemon serves meanwhile, no path is followed and no file of the member's
    becomes a job.
    """
    secret = station.path.parent / "secret.png"
    shutil.copyfile(samples / "round_circle_01.png", secret)
    secret.chmod(0o600)
    (station.path.parent / "victim").mkdir()
    (station.path.parent / "victim/keep").touch()

    def attack() -> int:
        until = time.monotonic() + 5
        count = 0
        while time.monotonic() < until:
            count += 1
            place = station.requests / f"{new_job_id()}.request.json"
            try:
                match count % 6:
                    case 0:
                        place.symlink_to(secret)
                    case 1:
                        os.mkfifo(place)
                    case 2:
                        place.mkdir()
                        (place / "in").symlink_to(station.path.parent / "victim")
                        place.chmod(0o777)
                    case 3:
                        place.write_bytes(msgspec.json.encode(ReplayRequest("../../secret.png")))
                    case 4:
                        place.touch()
                        os.truncate(place, 1 << 40)
                    case 5:
                        place.write_bytes(msgspec.json.encode(ModelRequest(str(station.inbox))))
                        place.unlink()
                        place.symlink_to(station.requests)
            except FileNotFoundError:
                # The daemon was quicker.
                pass
        return count

    with serving(station, **QUICK) as daemon:
        count = as_member(attack)
        shutil.copyfile(samples / "angular_star_01.png", station.inbox / "star.png")
        daemon.wait_for_ends(2)
        assert 0 == daemon.stop()

    assert count > 100
    assert {"ring.json", "star.json"} == set(results(station))
    assert {} == failures(station)
    assert 2 == len(ends(station))
    assert [] == list(station.work.iterdir())
    assert (station.path.parent / "victim/keep").exists()
    assert not station.model_in_use.exists()
