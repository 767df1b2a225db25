"""Folders of ended jobs that new ones get, and what a power cut leaves in them."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.files.folders import Folders
from fluxdrop.files.layout import Root
from fluxdrop.jobs import folder_pool
from fluxdrop.jobs.claim import NewJob, claim, job_of, read_claim
from fluxdrop.jobs.folder_pool import FolderPool, spares_limit
from fluxdrop.jobs.job import file_sha256
from fluxdrop.jobs.store import Store
from fluxdrop.publish.publisher import Publisher
from fluxdrop.service.spare_recovery import recover_spares
from support import jobs
from support.jobs import claimed, job_in
from support.published import done, publish


def take_back(root: Root) -> list[str]:
    """Take back what is in spares/; the paths below inbox/ of the claims in work/ after that."""
    with closing(Store(root.database)) as store:
        recover_spares(root, store)
    found = [read_claim(folder) for folder in root.work.iterdir()]
    return [str(claim.source) for claim in found if claim]


@pytest.fixture
def pool(tmp_path: Path) -> FolderPool:
    """A pool without a folder to give."""
    return FolderPool(tmp_path / "spares", 256)


def ended(folder: Path) -> Path:
    """The folder of a job that ended, with a file in it."""
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    return folder


def claimed_again(root: Root, source: str) -> NewJob:
    """A claim of the new file *source* whose folder was used before, by the job ``old``."""
    spare = root.state / "old"
    spare.mkdir()
    pool = FolderPool(root.spares, 1)
    pool.discard(spare)
    pool.settle()
    (root.inbox / source).write_text(source)
    with closing(Folders(root.inbox)) as inbox:
        job = claim(inbox, root.work, source, lambda _: True, reuse_folder=pool.reuse_folder)
    assert job is not None
    return job


def test_given(pool: FolderPool, tmp_path: Path) -> None:
    """A discarded folder is given once, empty, when it is known to be empty on the disk."""
    pool.discard(ended(tmp_path / "one"))
    before = pool.reuse_folder(tmp_path / "two")
    pool.settle()

    assert [False, True, False] == [
        before,
        pool.reuse_folder(tmp_path / "two"),
        pool.reuse_folder(tmp_path / "three"),
    ]
    assert ["spares", "two"] == sorted(path.name for path in tmp_path.iterdir())
    assert [] == list((tmp_path / "two").iterdir())


def test_given_where_one_is_gone(pool: FolderPool, tmp_path: Path) -> None:
    """A folder that somebody removed is not given."""
    pool.discard(ended(tmp_path / "one"))
    pool.settle()
    (tmp_path / "spares" / "one").rmdir()

    assert not pool.reuse_folder(tmp_path / "two")


def test_folder_in_a_folder(pool: FolderPool, tmp_path: Path) -> None:
    """A job's folder that holds another one goes whole."""
    ended(ended(tmp_path / "one") / "below")
    pool.discard(tmp_path / "one")
    pool.settle()

    assert (False, []) == (pool.reuse_folder(tmp_path / "two"), list(tmp_path.iterdir()))


def test_few_are_kept(pool: FolderPool, tmp_path: Path) -> None:
    """Of very many folders a few hundred are kept."""
    for number in range(300):
        pool.discard(ended(tmp_path / str(number)))

    assert 256 == len(list((tmp_path / "spares").iterdir()))
    assert ["spares"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("filesystem", "given"), [("ext4", True), ("xfs", True), ("btrfs", False), ("", False)]
)
def test_filesystems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, filesystem: str, given: bool
) -> None:
    """Folders are used again only where a power cut keeps renames in their order."""
    monkeypatch.setattr(folder_pool, "filesystem_of", lambda _path: filesystem)
    pool = FolderPool(tmp_path / "spares", spares_limit(tmp_path))
    pool.discard(ended(tmp_path / "one"))
    pool.settle()

    assert given == pool.reuse_folder(tmp_path / "two")


def test_published_folder_is_given(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of published jobs are given when a later batch has waited for the whole disk, and not before."""
    monkeypatch.setattr(folder_pool, "filesystem_of", lambda _path: "ext4")
    with closing(Store(root.database)) as store:
        publisher = Publisher(root, store)
        given = []
        for batch in ("a", "b"):
            publisher.publish([done(root, f"{batch}/{number}.png") for number in range(30)])
            given.append(publisher.pool.reuse_folder(root.work / batch))

    assert [False, True] == given


@pytest.mark.parametrize("source", ["cat.png", "50%2F of it.png", f"{'a' * 216}.png"])
def test_claim_in_a_used_folder(root: Root, source: str) -> None:
    """An input in a folder that was used before tells its job, and its path below the inbox as any other does."""
    job = claimed_again(root, source)

    assert job.claim is not None
    assert job.claim == read_claim(job.folder)
    assert (source, job.folder.name) == (str(job.claim.source), job_of(job.claim))
    assert source == job.claim.input.read_text()


def test_claim_with_a_long_name(root: Root) -> None:
    """An input whose name has no room for its job gets a new folder."""
    job = claimed_again(root, f"{'a' * 250}.png")

    assert job.claim is not None
    assert (job.claim, None) == (read_claim(job.folder), job_of(job.claim))
    assert ["old"] == [path.name for path in root.spares.iterdir()]


def test_input_that_a_power_cut_left(root: Root) -> None:
    """An input that tells its job is that job's, whatever the job whose folder it lies in has published."""
    old = done(root, "cat.png")
    publish(root, [old])
    job = claimed_again(root, "cat.png")
    job.folder.rename(root.spares / old.job.id)

    assert ["cat.png"] == take_back(root)
    assert [job.folder] == list(root.work.iterdir())
    assert not root.spares.exists()


def test_own_input_that_a_power_cut_brought_back(root: Root) -> None:
    """An input in the folder of its own job, which has ended, is removed, whatever became of the result."""
    job = claimed_again(root, "cat.png")
    job.folder.rename(root.spares / job.folder.name)

    assert [] == take_back(root)
    assert not root.spares.exists()


def test_input_of_a_new_job(root: Root) -> None:
    """An input that a power cut left an older fluxdrop in the folder of an ended job is claimed again, untouched."""
    old = done(root, "cat.png")
    publish(root, [old])
    lost = job_in(claimed(root, "sub/dog.png"))
    text = lost.input.read_text()
    root.spares.mkdir(exist_ok=True)
    lost.folder.rename(root.spares / old.job.id)

    sources = take_back(root)

    assert ["sub/dog.png"] == sources
    (folder,) = root.work.iterdir()
    assert text == job_in(folder).input.read_text()
    assert not root.spares.exists()


def test_input_of_a_published_job(root: Root) -> None:
    """What a kill left of a published job is removed, and is no claim."""
    job = job_in(claimed(root, "cat.png"))
    job.sha256 = file_sha256(job.input)
    text = job.input.read_text()
    publish(root, [jobs.done(job)])
    (root.spares / job.id).mkdir(parents=True, exist_ok=True)
    (root.spares / job.id / job.input.name).write_text(text)

    assert [] == take_back(root)
    assert not root.spares.exists()


def test_nothing_there(root: Root) -> None:
    """A root without spares gets none by being looked at."""
    assert [] == take_back(root)
    assert not root.spares.exists()


def test_input_of_which_a_record_only_tells(root: Root) -> None:
    """A record with the digest of an input that has no name among the results does not have it removed."""
    job = job_in(claimed(root, "cat.png"))
    text = job.input.read_text()
    job.sha256 = file_sha256(job.input)
    publish(root, [jobs.done(job)])
    (root.outputs / "cat.png").unlink()
    (root.spares / job.id).mkdir(parents=True, exist_ok=True)
    (root.spares / job.id / job.input.name).write_text(text)

    assert ["cat.png"] == take_back(root)


def test_what_is_no_spare(root: Root, tmp_path: Path) -> None:
    """What somebody put into spares/ is left alone, whatever it is, and keeps no input from being claimed again."""
    lost = job_in(claimed(root, "dog.png"))
    root.spares.mkdir(exist_ok=True)
    lost.folder.rename(root.spares / lost.id)
    (root.spares / "loose.png").write_bytes(b"loose")
    os.mkfifo(root.spares / "fifo")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "input=cat.png").write_bytes(b"cat")
    (root.spares / "link").symlink_to(elsewhere)

    assert ["dog.png"] == take_back(root)
    assert ["fifo", "link", "loose.png"] == sorted(path.name for path in root.spares.iterdir())
    assert b"cat" == (elsewhere / "input=cat.png").read_bytes()
