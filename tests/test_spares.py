"""What an older fluxdrop left in spares/, with a power cut or without."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import jobs
from jobs import claimed, job_in
from published import done, publish

from fluxdrop.intake.claim import read_claim
from fluxdrop.jobs.job import file_sha256
from fluxdrop.jobs.spares import take_back_spares
from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root


def take_back(root: Root) -> list[str]:
    """Take back what is in spares/; the paths below inbox/ of the claims in work/ after that."""
    with closing(Store(root.database)) as store:
        take_back_spares(root, store)
    found = [read_claim(folder) for folder in root.work.iterdir()]
    return [str(claim.source) for claim in found if claim]


def test_input_of_a_new_job(root: Root) -> None:
    """An input that a power cut left in the folder of an ended job is claimed again, untouched."""
    ended = done(root, "cat.png")
    publish(root, [ended])
    lost = job_in(claimed(root, "sub/dog.png"))
    text = lost.input.read_text()
    root.spares.mkdir()
    lost.folder.rename(root.spares / ended.job.id)

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
    (root.spares / job.id).mkdir(parents=True)
    (root.spares / job.id / job.input.name).write_text(text)

    assert [] == take_back(root)
    assert not root.spares.exists()


def test_nothing_there(root: Root) -> None:
    """A root of this fluxdrop has no spares, and gets none."""
    assert [] == take_back(root)
    assert not root.spares.exists()


def test_input_of_which_a_record_only_tells(root: Root) -> None:
    """A record with the digest of an input that has no name among the results does not have it removed."""
    job = job_in(claimed(root, "cat.png"))
    text = job.input.read_text()
    job.sha256 = file_sha256(job.input)
    publish(root, [jobs.done(job)])
    (root.outputs / "cat.png").unlink()
    (root.spares / job.id).mkdir(parents=True)
    (root.spares / job.id / job.input.name).write_text(text)

    assert ["cat.png"] == take_back(root)


def test_what_is_no_spare(root: Root, tmp_path: Path) -> None:
    """What somebody put into spares/ is left alone, whatever it is, and keeps no input from being claimed again."""
    lost = job_in(claimed(root, "dog.png"))
    root.spares.mkdir()
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
