"""A job, read from its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_regular
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.claim import make_place
from fluxdrop.jobs.job import OPTIONS, JobOptions, file_sha256, open_job
from fluxdrop.printable import printable
from fluxdrop.timestamps import now, rfc3339
from support import jobs
from support.irregular import each_irregular


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat 1.png", "cat 1.png"),
        ("naïve 日本\u3000語.png", "naïve 日本\u3000語.png"),
        ("at 9.41\u202fAM.png", "at 9.41\u202fAM.png"),
        ("👩\u200d🚀.png", "👩\u200d🚀.png"),
        ("a\x1b[31mb\n\x7f.png", "a\ufffd[31mb\ufffd\ufffd.png"),
        ("a\u2028b.png", "a\ufffdb.png"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("\u2066a\u2069.png", "\ufffda\ufffd.png"),
        ("שלום.png", "שלום.png"),
        (os.fsdecode(b"caf\xe9.png"), "caf\ufffd.png"),
    ],
)
def test_printable(name: str, shown: str) -> None:
    """Names stay as they are but for undecodable bytes, control characters and line separators."""
    assert shown == printable(name)


@given(st.binary().map(os.fsdecode))
def test_any_name_is_shown(name: str) -> None:
    """Whatever bytes a name has, what is shown of it is UTF-8 in one line."""
    shown = printable(name)

    assert len(shown.encode().decode().splitlines()) <= 1


@pytest.mark.parametrize(
    ("source", "kind"),
    [("a/b/cat.PNG", "picture"), ("cat.webp", "picture"), ("x.txt", "prompt"), ("x", "unknown")],
)
def test_read_from_its_folder(root: Root, source: str, kind: str) -> None:
    """A job is its folder: the id, the source and its kind are read from there."""
    folder = jobs.claimed(root, source)

    job = jobs.job_in(folder)

    assert (folder.name, source, f"input of {folder.name}") == (
        job.id,
        job.source,
        job.input.read_text(),
    )
    assert (kind, JobOptions()) == (job.kind, job.options)


def test_undecodable_input_is_found(root: Root) -> None:
    """What is shown of a name is not what the file is opened by."""
    job = jobs.job_in(jobs.claimed(root, b"caf\xe9.png"))

    assert ("caf\ufffd.png", f"input of {job.id}") == (job.source, job.input.read_text())


@pytest.mark.parametrize(
    ("name", "created"),
    [
        ("20260102T030405-0a1b2c3d", "2026-01-02T03:04:05Z"),
        ("20261231T235959-0a1b2c3d", "2026-12-31T23:59:59Z"),
    ],
)
def test_created(root: Root, name: str, created: str) -> None:
    """A job is as old as its id says, whatever the clock says of its files."""
    folder = root.work / name
    make_place(folder, "cat.png").touch()

    assert created == jobs.job_in(folder).created


def test_no_input(root: Root) -> None:
    """A folder without an input is no job."""
    (root.work / "20260102T030405-0a1b2c3d").mkdir()

    assert open_job(root.work / "20260102T030405-0a1b2c3d") is None


@pytest.mark.parametrize("name", [OPTIONS, "request.json"])
def test_options(root: Root, name: str) -> None:
    """What a command asked is part of the job, also of one that an earlier fluxdrop left in hand."""
    folder = jobs.claimed(root, "cat.txt")
    asked = JobOptions(replay_of="x", generation=PromptParameters(prompt="a cat", seed=2**64 - 1))
    (folder / name).write_bytes(msgspec.json.encode(asked))

    assert asked == jobs.job_in(folder).options


@pytest.mark.parametrize("content", [b"", b"{", b'{"seed": 1}', b'{"replay_of": 1}'])
def test_wrong_options(root: Root, content: bytes) -> None:
    """Options that cannot be read are an error that names their file."""
    folder = jobs.claimed(root, "cat.txt")
    (folder / OPTIONS).write_bytes(content)

    with pytest.raises(FluxdropError, match=re.escape(str(folder / OPTIONS))) as caught:
        open_job(folder)

    assert "options" == caught.value.kind


def test_moments() -> None:
    """Moments are RFC 3339 in UTC with milliseconds, whatever their time zone was."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=timezone(timedelta(hours=2)))

    assert "2026-01-02T01:04:05.678Z" == rfc3339(moment)
    assert datetime.fromisoformat(now()) <= datetime.now(UTC)


def test_timed(root: Root) -> None:
    """A stage that failed has its time as well."""
    job = jobs.job_in(jobs.claimed(root, "cat.png"))

    with pytest.raises(KeyError), job.timed("generate"):
        raise KeyError

    assert ["generate"] == list(job.timings_ms)


@pytest.mark.parametrize("most", [2, 3])
def test_sha256_of_what_grows(tmp_path: Path, most: int) -> None:
    """Of a file of which more comes than there may be, no more is read than that."""
    with (tmp_path / "grown").open("wb") as file:
        file.write(b"abc")
        if most == 2:
            file.truncate(1 << 42)

    with pytest.raises(FluxdropError, match="big grew over") if most == 2 else nullcontext():
        assert 64 == len(file_sha256(tmp_path / "grown", most, "big"))


def test_sha256(tmp_path: Path) -> None:
    """The digest is of the file's bytes."""
    (tmp_path / "abc").write_bytes(b"abc")

    digest = file_sha256(tmp_path / "abc")

    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == digest


@each_irregular
def test_not_a_regular_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """What is not a regular file is refused at once, with a hint, and no symlink is followed."""
    path = tmp_path / "cat.png"
    make(path)

    with pytest.raises(FluxdropError, match=r"^cat\.png ") as caught:
        open_regular(path, "picture")

    assert ("picture", True) == (caught.value.kind, bool(caught.value.hint))
