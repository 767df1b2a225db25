"""What commands hand to the daemon."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, RootLock
from fluxdrop.jobs.claim import make_place
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.store import Row, Store
from fluxdrop.requests.submission import (
    Submitted,
    submit_file,
    submit_prompt,
    wait_for,
    wait_for_jobs,
)
from fluxdrop.timestamps import now
from support import jobs


def written(path: Path, text: str = "x") -> Path:
    path.write_text(text)
    return path


def test_files_get_free_names(root: Root, tmp_path: Path) -> None:
    """Each submitted file is in the inbox, whole, under its name or the next free one."""
    files = []
    for text in ("one", "two", "three"):
        files.append(submit_file(root, written(tmp_path / "cat.v1.png", text)).file)

    assert ["cat.v1.png", "cat.v1-2.png", "cat.v1-3.png"] == files
    contents = {path.name: path.read_text() for path in root.inbox.iterdir()}
    assert dict(zip(files, ["one", "two", "three"], strict=True)) == contents


def refuse_link(source: object, target: object, **_how: object) -> None:
    """link(2) as a filesystem without hard links answers it."""
    taken = os.path.lexists(str(target))
    raise OSError(errno.EEXIST if taken else errno.EPERM, "refused", str(target))


@pytest.mark.parametrize("has_links", [True, False])
def test_many_at_once(root: Root, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    """Prompts that are submitted at the same moment do not replace one another."""
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_link)
    with ThreadPoolExecutor(8) as pool:
        submitted = list(pool.map(lambda n: submit_prompt(root, f"a cat\n{n}"), range(40)))

    texts = {(root.inbox / item.file).read_text() for item in submitted}
    assert {f"a cat\n{n}" for n in range(40)} == texts
    assert 40 == len(list(root.inbox.iterdir()))


@pytest.mark.parametrize(
    ("prompt", "file"),
    [
        ("A large, red circle!", "a-large-red-circle.txt"),
        ("  ein Fuß\nNegative prompt: fog", "ein-fuß.txt"),
        ("../../etc/passwd", "etc-passwd.txt"),
        ("日本" * 60, "日本" * 30 + ".txt"),
        ("~#.!", "prompt.txt"),
        ("", "prompt.txt"),
    ],
)
def test_name_of_a_prompt(root: Root, prompt: str, file: str) -> None:
    """A prompt's file is named after its beginning, and holds all of it."""
    submitted = submit_prompt(root, prompt)

    assert (file, prompt) == (submitted.file, (root.inbox / file).read_text())


@pytest.mark.parametrize("name", ["cat.mp4", "cat", ".cat.png", "cat.png.part", "~$cat.txt"])
def test_refused_names(root: Root, tmp_path: Path, name: str) -> None:
    """What the daemon would leave alone or set aside is refused before it is copied."""
    path = written(tmp_path / name)

    with pytest.raises(FluxdropError, match=re.escape(str(path))) as caught:
        submit_file(root, path)

    assert ("unknown", []) == (caught.value.kind, list(root.inbox.iterdir()))


@pytest.mark.parametrize("name", ["missing.png", "folder.png"])
def test_unreadable_file(root: Root, tmp_path: Path, name: str) -> None:
    """A file that cannot be read is an error, and leaves nothing in the inbox."""
    (tmp_path / "folder.png").mkdir()

    with pytest.raises(FluxdropError, match=f"{name} cannot be read"):
        submit_file(root, tmp_path / name)

    assert [] == list(root.inbox.iterdir())


def test_inbox_that_is_gone(root: Root, tmp_path: Path) -> None:
    """An inbox that cannot be written to is an error that names the file."""
    root.inbox.rmdir()

    with pytest.raises(FluxdropError, match=r"inbox/\..*\.part cannot be written"):
        submit_prompt(root, "a cat")


def finished_on_wait(store: Store, rows: list[Row]) -> Callable[[int], None]:
    """An on_wait that enters the end of one more of *rows* each time."""

    def on_wait(left: int) -> None:
        assert len(rows) == left
        store.finished([rows.pop()])

    return on_wait


def test_wait_by_inode(root: Root) -> None:
    """A submitted file's job is known by the file itself, under whatever name it was claimed."""
    submitted = [submit_prompt(root, "a cat") for _ in range(2)]
    rows = []
    for item in submitted:
        folder = root.work / new_job_id()
        (root.inbox / item.file).rename(make_place(folder, item.file))
        job = jobs.job_in(folder)
        inode = job.input.stat().st_ino
        rows.append(Row(job.id, "done", "prompt", item.file, inode, created=job.created))

    with closing(RootLock(root)), closing(Store(root.database)) as store:
        ended = wait_for(root, submitted, finished_on_wait(store, rows[::-1]))

    assert [item.file for item in submitted] == [row.source for row in ended]


def test_inode_of_an_ended_job(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job of a file that is gone is not taken for that of a new file that gets its inode in the same second."""
    by_inode = Store.by_inode
    monkeypatch.setattr(Store, "by_inode", lambda store, _inode, since: by_inode(store, 1, since))
    with closing(RootLock(root)), closing(Store(root.database)) as store:
        store.finished([Row("earlier", "done", "prompt", "a-cat.txt", 1, created=now())])
        submitted = submit_prompt(root, "a cat")
        mine = Row("mine", "done", "prompt", submitted.file, 1, created=now())
        ended = wait_for(root, [submitted], finished_on_wait(store, [mine]))

    assert ["mine"] == [row.id for row in ended]


def test_wait_by_id(root: Root) -> None:
    """Waiting ends when the last of the jobs has ended, also failed."""
    rows = [Row(job, "failed", "picture", "x.png", created=now()) for job in ("a", "b", "c")]

    with closing(RootLock(root)), closing(Store(root.database)) as store:
        ended = wait_for_jobs(root, ["a", "b", "c"], finished_on_wait(store, rows.copy()))

    assert rows == ended


def test_wait_before_there_is_an_index(root: Root) -> None:
    """A daemon that has not made its index yet is waited for as well."""
    left: list[int] = []

    def on_wait(count: int) -> None:
        left.append(count)
        with closing(Store(root.database)) as store:
            store.finished(Row(job, "done", "picture", "x.png", created=now()) for job in "ab")

    with closing(RootLock(root)):
        ended = wait_for_jobs(root, ["a", "b"], on_wait)

    assert ([2], ["a", "b"]) == (left, [row.id for row in ended])


def never(_left: int) -> None:
    pytest.fail("there is nothing to wait for")


def test_no_daemon(root: Root) -> None:
    """Without a daemon there is nothing to wait for, which is said with what to do."""
    with pytest.raises(FluxdropError, match="fluxdrop run") as caught:
        wait_for(root, [Submitted("cat.png", 1, "")], never)

    assert "not-running" == caught.value.kind


def test_ended_before_the_daemon_did(root: Root) -> None:
    """What has ended is told also when the daemon has gone since."""
    row = Row("a", "done", "picture", "x.png", created=now())
    with closing(Store(root.database)) as store:
        store.finished([row])

    assert [row] == wait_for_jobs(root, ["a"], never)
