"""What becomes of inputs that their owners make large, close or change while they are published, and of folders that
somebody else closes."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.publish import links
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.records.result import Failure
from support import jobs
from support.members import root_for_everybody
from support.published import done, failed, in_child, publish, publishing, records
from support.rights import forbid_links_to_inputs

NOBODY = 65534
TERABYTE = 1 << 40
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a file to somebody else"
)


@pytest.fixture
def nobodys() -> Iterator[Root]:
    """A root that a user without rights can serve."""
    yield from root_for_everybody()


def as_nobody(root: Root, act: Callable[[], int | None], *strangers: Path) -> int:
    """Run *act* in a process of that user, to whom all in *root* belongs but the *strangers*."""
    for path in [root.path, *root.path.rglob("*")]:
        if path not in strangers:
            os.lchown(path, NOBODY, NOBODY)

    def acting() -> int | None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return act()

    return in_child(acting)


def test_failed_input_is_moved(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed input that cannot be linked is moved, however large its owner made it."""
    forbid_links_to_inputs(monkeypatch)
    item = failed(root, "holiday.mp4")
    os.truncate(item.job.input, TERABYTE)
    before = item.job.input.stat()

    paths = publish(root, [item, failed(root, "b.pdf")])

    after = (root.failed / "holiday.mp4").stat()
    assert ["failed/holiday.mp4.error.json", "failed/b.pdf.error.json"] == paths
    assert (before.st_ino, TERABYTE) == (after.st_ino, after.st_size)
    assert [] == list(root.work.iterdir())


def test_move_replaces_nothing(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """What took the name of a failed input after it was decided stays, and the input gets another."""
    forbid_links_to_inputs(monkeypatch)
    item = failed(root, "a.pdf")
    decide = Plans.decide

    def decide_and_take(plans: Plans, decided: Mapping[str, Plan]) -> None:
        decide(plans, decided)
        (root.failed / "a.pdf").write_text("somebody else's")
        monkeypatch.setattr(Plans, "decide", decide)

    monkeypatch.setattr(Plans, "decide", decide_and_take)
    with publishing(root) as publisher:
        first = publisher.publish([item])
        second = publisher.publish([jobs.failed(jobs.job_in(item.job.folder))])

    assert ([], [item.job.folder]) == (first.records, first.void)
    assert ["outputs/failed/a-2.pdf.error.json"] == [path for _, path in second.records]
    assert "somebody else's" == (root.failed / "a.pdf").read_text()
    assert f"input of {item.job.id}" == (root.failed / "a-2.pdf").read_text()


def on_another_filesystem(root: Root) -> tempfile.TemporaryDirectory[str]:
    """Have outputs/ lie on another filesystem."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == root.path.stat().st_dev:
        pytest.skip("there is no second filesystem to write to")
    elsewhere = tempfile.TemporaryDirectory(dir=shm)
    root.failed.rmdir()
    root.outputs.rmdir()
    root.outputs.symlink_to(elsewhere.name)
    root.create()
    return elsewhere


def test_large_input_is_kept(root: Root) -> None:
    """A failed input that outputs/, on another filesystem, would have to hold a copy of, and that is larger than any
    that is taken, stays in .fluxdrop/, as its record says; the others are copied."""
    with on_another_filesystem(root):
        item, other = failed(root, "sub/holiday.mp4"), failed(root, "b.pdf")
        os.truncate(item.job.input, TERABYTE)
        (root.state / "kept").touch()  # Somebody else's, in the way.
        before = item.job.input.stat()
        with publishing(root) as publisher:
            publisher.max_copied_bytes = 1000
            first = publisher.publish([item, other])
            second = publisher.publish([jobs.failed(jobs.job_in(item.job.folder))])
        record = records(root)["outputs/failed/sub/holiday.mp4.error.json"]

        assert ["outputs/failed/b.pdf.error.json"] == [path for _, path in first.records]
        assert [item.job.folder] == first.void
        assert [] == second.void
        assert f"input of {other.job.id}" == (root.failed / "b.pdf").read_text()
        kept = root.state / "kept" / "sub" / "holiday.mp4"
        assert before.st_ino == kept.stat().st_ino
        assert isinstance(record, Failure)
        assert record.error.hint.endswith("moved to .fluxdrop/kept/sub/holiday.mp4.")
        assert not (root.failed / "sub" / "holiday.mp4").exists()
        assert [] == list(root.work.iterdir())


def test_input_that_grows(root: Root) -> None:
    """A file that somebody goes on writing while it is copied is copied as long as it was."""
    with on_another_filesystem(root):
        source = root.path / "source"
        source.write_bytes(b"data")

        def grow() -> None:
            assert source.stat().st_size < 1000
            with source.open("ab") as file:
                file.write(b"more")

        fd = os.open(root.outputs, os.O_RDONLY)
        links.link_or_copy(str(source), "copy", fd, grow, 1000)
        os.close(fd)

        assert b"data" == (root.outputs / "copy").read_bytes()


@needs_root
def test_closed_folder(nobodys: Root) -> None:
    """A folder in outputs/ that somebody else closed is one whose name is taken: what would go there goes into a
    numbered one."""
    closed = nobodys.outputs / "team"
    closed.mkdir(mode=0o700)
    readable = nobodys.generated / "others"
    readable.mkdir(mode=0o755)
    batch = [done(nobodys, "team/a/x.png"), done(nobodys, "y.png"), done(nobodys, "others/z.txt")]
    batch.append(failed(nobodys, "team/w.pdf"))

    ended = as_nobody(nobodys, lambda: len(publish(nobodys, batch)), closed, readable)

    assert len(batch) == ended
    assert set(records(nobodys)) == {
        "outputs/team-2/a/x.json",
        "outputs/y.json",
        "outputs/others-2/z.json",
        "outputs/failed/team/w.pdf.error.json",
    }


@needs_root
@pytest.mark.parametrize("mode", [0, 0o500])
def test_folder_closed_meanwhile(nobodys: Root, mode: int) -> None:
    """A folder that is closed after names in it were decided costs the others nothing, and its job gets another."""
    item, other = done(nobodys, "team/x.png"), done(nobodys, "y.png")
    folder = nobodys.outputs / "team"
    folder.mkdir()
    decide = Plans.decide

    def decide_and_close(plans: Plans, decided: Mapping[str, Plan]) -> None:
        decide(plans, decided)
        folder.chmod(mode)

    def act() -> int:
        with publishing(nobodys) as publisher:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Plans, "decide", decide_and_close)
                first = publisher.publish([item, other])
            again = jobs.done(jobs.job_in(item.job.folder))
            second = publisher.publish([again])
        return 10 * len(first.records) + len(second.records)

    assert 11 == as_nobody(nobodys, act)
    assert {"outputs/team-2/x.json", "outputs/y.json"} == set(records(nobodys))


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_closed_folder_of_failures(nobodys: Root, mode: int) -> None:
    """A folder of somebody else's in the place of outputs/failed/ is moved aside, whole."""
    nobodys.failed.chmod(mode)
    (nobodys.failed / "theirs").touch()
    item = failed(nobodys, "x.pdf")

    def act() -> int:
        with publishing(nobodys) as publisher:
            first = publisher.publish([item])
            second = publisher.publish([jobs.failed(jobs.job_in(item.job.folder))])
        return 10 * len(first.records) + len(second.records)

    assert 1 == as_nobody(nobodys, act, nobodys.failed)
    assert {"outputs/failed/x.pdf.error.json"} == set(records(nobodys))
    assert (nobodys.outputs / "failed-not-ours-1" / "theirs").exists()


@needs_root
def test_closed_top(nobodys: Root) -> None:
    """outputs/ itself that is closed holds up all until somebody mends it, and costs no job anything."""
    item = done(nobodys, "x.png")

    def act() -> int:
        with publishing(nobodys) as publisher:
            nobodys.outputs.chmod(0o500)
            with pytest.raises(PermissionError):
                publisher.publish([item])
            nobodys.outputs.chmod(0o755)
            return len(publisher.publish([item]).records)

    assert 1 == as_nobody(nobodys, act)
    assert {"outputs/x.json"} == set(records(nobodys))


@needs_root
def test_input_closed_meanwhile(nobodys: Root) -> None:
    """An input that its owner closes while its result is published is tried a few times, and then the job is given
    up, so that the others go on; its failure is published, with the file as it is."""
    item, other = done(nobodys, "x.png"), done(nobodys, "y.png")
    item.job.input.chmod(0o600)

    def act() -> int:
        with publishing(nobodys) as publisher:
            first = publisher.publish([item, other])
            assert [item.job.folder] == first.void
            publisher.publish([item])
            with pytest.raises(FluxdropError, match=r"x\.png cannot be published"):
                publisher.publish([item])
            publisher.withdraw(item.job.folder)
            return len(publisher.publish([jobs.failed(item.job)]).records)

    assert 1 == as_nobody(nobodys, act, item.job.input)
    (failure,) = (path for path in records(nobodys) if path.startswith("outputs/failed/"))
    text = (nobodys.path / failure.removesuffix(".error.json")).read_text()
    assert f"input of {item.job.id}" == text
    assert "outputs/y.json" in records(nobodys)


def test_too_few_open_files(root: Root) -> None:
    """With a low limit of open files a batch for many folders is published all the same."""
    batch = [done(root, f"{'/'.join('abcdefghi'[: 1 + n % 8])}/{n}/x.png") for n in range(40)]

    def act() -> int:
        with publishing(root) as publisher:
            used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
            limit = [number for number in range(10_000) if number not in used][12]
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return len(publisher.publish(batch).records)

    assert 40 == in_child(act)
    assert 40 == len(records(root))
    assert [] == list(root.work.iterdir())
