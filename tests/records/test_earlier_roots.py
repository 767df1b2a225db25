"""Results of earlier versions, which converted what was dropped to PNG: every reader still finds their files."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from fluxdrop.doctor.contents import index
from fluxdrop.files.layout import Root
from fluxdrop.gallery.entry import entry_of
from fluxdrop.jobs.row_facts import is_there
from fluxdrop.jobs.select import find_job
from fluxdrop.jobs.store import Row, Store
from fluxdrop.records.job_files import files_of, is_published, read_record
from fluxdrop.records.result import Result
from support.earlier_roots import convert
from support.published import done, publish


@pytest.fixture
def row(root: Root) -> Row:
    """A result that an earlier version made of cat.jpeg."""
    publish(root, [done(root, "cat.jpeg")])
    convert(root, "cat", "jpeg")
    with closing(Store(root.database, read_only=True)) as store:
        return find_job(root, store, "cat")


def test_files(root: Root, row: Row) -> None:
    """The picture is the PNG, and the input is what lies beside it."""
    record = read_record(root, row)

    files = files_of(root, "outputs/cat.json", record)

    found = [str(files[role].relative_to(root.path)) for role in ("input", "image", "generated")]
    assert ["outputs/cat.jpg", "outputs/cat.png", "generated_images/cat.png"] == found
    assert isinstance(record, Result)
    assert "PNG" == record.image.format


def test_it_is_there(root: Root, row: Row) -> None:
    """Neither `jobs` nor `doctor` misses a picture, and the gallery links the PNG."""
    record = read_record(root, row)

    assert is_there(root, row)
    assert ["index"] == [finding.check for finding in index(root)]
    entry = entry_of(record, "cat.json", "picture")
    assert (".png", False) == (entry.suffix, entry.opaque)


def test_it_is_published(root: Root, row: Row) -> None:
    """A claimed file that is the published one is known as such."""
    other = root.work / "other"
    other.write_text("another file")

    assert is_published(root, row, root.outputs / "cat.jpg")
    assert not is_published(root, row, other)


@pytest.mark.parametrize("path", ["outputs/cat.jpg", "outputs/cat.png", "generated_images/cat.png"])
def test_it_is_found_by_its_files(root: Root, row: Row, path: str) -> None:
    """Each of its files means the job."""
    with closing(Store(root.database, read_only=True)) as store:
        assert row == find_job(root, store, os.fspath(root.path / path))


@pytest.mark.parametrize("source", ["cat.JPG", "cat.heic"])
def test_the_picture_of_a_row(root: Root, source: str) -> None:
    """A picture with its own suffix is found by the index alone, and missed when it is gone."""
    publish(root, [done(root, source)])
    with closing(Store(root.database, read_only=True)) as store:
        found = find_job(root, store, str(root.outputs / source))

    assert is_there(root, found)
    (root.outputs / source).unlink()
    assert not is_there(root, found)
