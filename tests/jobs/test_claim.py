"""Claiming one file of the inbox."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.files.folders import Folders
from fluxdrop.files.layout import Root
from fluxdrop.jobs.claim import claim, discard_unclaimed, make_place, read_claim
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.store import Store
from support.admissions import Bench

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_job_ids() -> None:
    """Job ids sort by time, and no two are equal."""
    ids = [new_job_id() for _ in range(1000)]

    assert 1000 == len(set(ids))
    assert ids[0][:15] <= ids[-1][:15]


def test_job_ids_of_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that chance draws twice within a second is drawn again."""
    drawn = iter(["0000000a", "0000000a", "0000000b"])
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2030, 1, 1, 0, 0, 0, 1, 1, 0)))
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(drawn))

    ids = [new_job_id(), new_job_id()]

    assert ["20300101T000000-0000000a", "20300101T000000-0000000b"] == ids


def test_claim(root: Root, png: bytes) -> None:
    """A claim is one rename into a new job's folder, which remembers the path in the inbox."""
    (root.inbox / "cats").mkdir()
    (root.inbox / "cats" / "a.png").write_bytes(png)
    inode = (root.inbox / "cats" / "a.png").stat().st_ino
    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, "cats/a.png", lambda _: True)

    assert job is not None
    found = read_claim(job.folder)
    assert found is not None
    assert found == job.claim
    assert ("cats/a.png", inode) == (str(found.source), found.input.stat().st_ino)


def test_fault_comes_before_the_input(
    root: Root, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why a file has to fail is on the disk, and so is its name, before the file is claimed: a power cut that keeps the
    file alone would have it done as if it were whole."""
    (root.inbox / "a.png").write_bytes(png[:-5])
    synced: set[int] = set()
    before: list[bool] = []
    fsync, rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        fsync(fd)
        synced.add(os.fstat(fd).st_ino)

    def watched(source: str, target: Path, **options: int) -> None:
        if Path(target).name.startswith("input="):
            job = Path(target).parent
            before.append({(job / "fault").stat().st_ino, job.stat().st_ino} <= synced)
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", watched)
    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, "a.png", lambda _: True, "incomplete: it is cut off")

    assert [True] == before
    assert job is not None
    assert "incomplete: it is cut off" == (job.folder / "fault").read_text()
    assert read_claim(job.folder) == job.claim


@pytest.mark.parametrize(
    "source",
    [
        "a.png",
        "cats/a.png",
        "50%.png",
        "a%2Fb.png",
        "a%252Fb.png",
        f"{'a/' * 100}b.png",
        f"{'a/' * 1000}caf\udce9.png",
        "0" * 64,
        "caf\udce9",
    ],
)
def test_place_tells_the_source(tmp_path: Path, source: str) -> None:
    """The place of an input tells its path below the inbox, whatever its length and its bytes."""
    path = make_place(tmp_path / "job", source)
    path.touch()

    claim = read_claim(tmp_path / "job")

    assert claim is not None
    assert tmp_path / "job" == path.parent
    assert (source, path) == (str(claim.source), claim.input)


@pytest.mark.parametrize("name", ["..%2F..%2Fa.png", "cats%2F..%2F..%2Fa.png", "%2Fa.png", ".."])
def test_place_outside(tmp_path: Path, name: str) -> None:
    """An input whose name tells a path outside the inbox is none, whoever made its folder."""
    (tmp_path / f"input={name}").touch()

    assert read_claim(tmp_path) is None


@pytest.mark.parametrize("path", ["gone.png", "gone/a.png", "another.png"])
def test_nothing_to_claim(root: Root, path: str) -> None:
    """A file that is gone, or is not the one that was judged, is not claimed, and no folder for it
    is left.
    """
    (root.inbox / "another.png").touch()

    with closing(Folders(root.inbox)) as inbox:
        assert claim(inbox, root.work, path, lambda _: False) is None
    assert [] == list(root.work.iterdir())


def test_claim_through_a_symlink(root: Root, png: bytes) -> None:
    """Nothing is claimed from outside the inbox."""
    outside = root.path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(png)
    (root.inbox / "cats").symlink_to(outside)

    with closing(Folders(root.inbox)) as inbox, pytest.raises(NotADirectoryError):
        claim(inbox, root.work, "cats/a.png", lambda _: True)
    assert [] == list(root.work.iterdir())
    assert (outside / "a.png").exists()


def make_folder(job: Path) -> None:
    (job / "input=a.png" / "d").mkdir(parents=True)
    (job / "input=a.png" / "d" / "a.png").write_bytes(b"mine")


def make_nested(job: Path) -> None:
    (job / "input" / "cats").mkdir(parents=True)
    (job / "input" / "cats" / "a.png").write_bytes(b"mine")


def make_link(job: Path) -> None:
    job.mkdir()
    (job / "input=a.png").symlink_to(job.parent.parent / "daemon.lock")


def make_fifo(job: Path) -> None:
    job.mkdir()
    os.mkfifo(job / "input=a.png")


def make_two(job: Path) -> None:
    job.mkdir()
    (job / "input=a.png").write_bytes(b"mine")
    (job / "input=b.png").write_bytes(b"mine")


def make_outside(job: Path) -> None:
    job.mkdir()
    (job / "input=..%2Fa.png").write_bytes(b"mine")


def make_long_outside(job: Path) -> None:
    make_place(job, "../" * 100 + "a.png").write_bytes(b"mine")


def make_other_source(job: Path) -> None:
    make_place(job, "a" * 300).write_bytes(b"mine")
    (job / "source").write_bytes(b"b" * 300)


ODD = [
    make_folder,
    make_nested,
    make_link,
    make_fifo,
    make_two,
    make_outside,
    make_long_outside,
    make_other_source,
]


def listing(folder: Path) -> list[str]:
    """All that lies below *folder*, without following a symlink."""
    return sorted(
        str((Path(current) / name).relative_to(folder))
        for current, folders, files in os.walk(folder)
        for name in [*folders, *files]
    )


@pytest.mark.parametrize("make", ODD)
def test_odd_input(root: Root, make: Callable[[Path], None]) -> None:
    """What has anything but one regular file as its input, or one that tells no path in the inbox, is no claim: it is
    set aside whole, and nothing in it is looked for."""
    job = root.work / new_job_id()
    make(job)
    held = listing(job)

    assert read_claim(job) is None
    discard_unclaimed(job, root.refused)
    assert ([], [job.name]) == (
        list(root.work.iterdir()),
        [path.name for path in root.refused.iterdir()],
    )
    assert held == listing(root.refused / job.name)
    assert 0o700 == stat.S_IMODE(root.refused.stat().st_mode)


def test_odd_input_of_a_known_name(root: Root) -> None:
    """What was set aside before is kept when another job of the same id comes, as from a backup."""
    for _ in range(2):
        make_folder(root.work / "20260102T030405-0a1b2c3d")
        discard_unclaimed(root.work / "20260102T030405-0a1b2c3d", root.refused)

    assert [] == list(root.work.iterdir())
    assert [3, 3] == [len(listing(kept)) for kept in root.refused.iterdir()]


def test_what_is_no_claim(root: Root) -> None:
    """A folder without an input goes, with what was made of the input: a power cut kept that, and lost the
    claim."""
    made = root.work / "made"
    made.mkdir()
    (made / "tensor.npy").touch()

    assert read_claim(made) is None
    discard_unclaimed(made, root.refused)
    assert (False, False) == (made.exists(), root.refused.exists())


def swap(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Have *before* done between the check of a file that is claimed and its rename."""
    rename = os.rename

    def late(source: str, target: Path, **options: int) -> None:
        monkeypatch.setattr(os, "rename", rename)
        before()
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", late)


@pytest.mark.parametrize("name", ["a.png", f"{'a' * 250}.png"])
def test_claim_of_a_folder(root: Root, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A folder that takes a file's name just before the rename is set aside whole by the daemon that claimed it, and
    no path leads into it."""
    (root.inbox / name).write_bytes(b"a file")
    decoy = root.inbox / "decoy"
    (decoy / "d").mkdir(parents=True)
    (decoy / "d" / "secret.png").write_bytes(b"decoy")

    def exchange() -> None:
        (root.inbox / name).unlink()
        decoy.rename(root.inbox / name)

    meant = (root.inbox / name).stat().st_ino
    swap(monkeypatch, exchange)
    with closing(Folders(root.inbox)) as inbox, closing(Store(root.database)) as store:
        job = claim(inbox, root.work, name, lambda status: status.st_ino == meant)
        assert job is not None
        bench = Bench(root, store)
        bench.admission.add(job)
        bench.admission.admit()
        bench.admission.admit()

    assert ([], []) == (bench.stages.accepted, list(root.work.iterdir()))
    assert ["d", "d/secret.png"] == listing(next((root.refused / job.folder.name).glob("input=*")))


@pytest.mark.parametrize("taken", [False, True])
def test_claim_of_another_file(root: Root, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    """Another file that is saved under a file's name just before the rename was not judged yet: it gets its name back,
    to be judged; where a third one has that meanwhile, it is claimed. None is lost."""
    (root.inbox / "a.png").write_bytes(b"old")
    (root.inbox / "new").write_bytes(b"new")
    meant = (root.inbox / "a.png").stat().st_ino
    swap(monkeypatch, lambda: (root.inbox / "new").replace(root.inbox / "a.png"))

    def is_same(status: os.stat_result) -> bool:
        if taken and status.st_ino != meant:
            (root.inbox / "a.png").write_bytes(b"third")
        return status.st_ino == meant

    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, "a.png", is_same)

    if taken:
        found = read_claim(job.folder) if job else None
        assert found is not None
        assert (b"new", b"third") == (found.input.read_bytes(), (root.inbox / "a.png").read_bytes())
    else:
        assert (None, []) == (job, list(root.work.iterdir()))
        assert b"new" == (root.inbox / "a.png").read_bytes()


def test_source_comes_before_the_input(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an input that has no room for it in its name is on the disk before the input is claimed."""
    name = f"{'a' * 250}.png"
    (root.inbox / name).touch()
    synced: set[int] = set()
    before: list[bool] = []
    fsync = os.fsync

    def sync(fd: int) -> None:
        fsync(fd)
        synced.add(os.fstat(fd).st_ino)

    def look() -> None:
        (job,) = root.work.iterdir()
        before.append({(job / "source").stat().st_ino, job.stat().st_ino} <= synced)

    monkeypatch.setattr(os, "fsync", sync)
    swap(monkeypatch, look)
    with closing(Folders(root.inbox)) as inbox:
        claim(inbox, root.work, name, lambda _: True)

    assert [True] == before
