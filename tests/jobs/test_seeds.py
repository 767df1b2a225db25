"""The seeds that are drawn for jobs, and stay with them."""

from __future__ import annotations

import pytest

from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.jobs.job import open_job
from fluxdrop.jobs.seeds import draw_seeds, seed_among
from support.fakes import full
from support.jobs import claimed


def test_drawn_once(root: Root) -> None:
    """Each job has a seed of its own, which it still has when it is opened again."""
    folders = [claimed(root, f"{number}.txt") for number in range(9)]
    before = [open_job(folder) for folder in folders]

    seeds = draw_seeds(folders)

    assert [None] * 9 == [job.seed for job in before if job]
    assert seeds == [job.seed for folder in folders if (job := open_job(folder))]
    assert 9 == len(set(seeds))


def test_full_disk(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a seed cannot be put on the disk, none is left, so that no job gets two."""
    folders = [claimed(root, f"{number}.txt") for number in range(2)]

    def refuse(*_arguments: object) -> None:
        raise full()

    monkeypatch.setattr(durable, "sync_all", refuse)
    with pytest.raises(OSError, match="No space left"):
        draw_seeds(folders)

    assert [None, None] == [job.seed for folder in folders if (job := open_job(folder))]


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("seed=0", 0),
        ("seed=4294967295", 2**32 - 1),
        ("seed=", None),
        ("seed=-1", None),
        ("a", None),
    ],
)
def test_name(name: str, seed: int | None) -> None:
    """The seed is the file's name, and no other name is one."""
    assert seed == seed_among(["input=a.txt", name])
