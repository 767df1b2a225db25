"""Publishing: the names that results get, and what lies where."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.records.result import Result, decode
from support import jobs
from support.published import (
    contents,
    done,
    failed,
    files_of,
    in_child,
    publish,
    publishing,
    records,
)


@pytest.mark.parametrize("together", [True, False])
def test_equal_names(root: Root, together: bool) -> None:
    """The n-th result of a name gets -n, in one batch as across batches, whatever its suffix was."""
    batch = [done(root, source) for source in ("cat.png", "cat.txt", "cat.png", "cat.jpg")]

    paths = publish(root, *([batch] if together else [[one] for one in batch]))

    assert ["cat.json", "cat-2.json", "cat-3.json", "cat-4.json"] == paths


@pytest.mark.parametrize(
    ("sources", "paths"),
    [
        (["A.txt", "a.txt", "A.png"], ["A.json", "a-2.json", "A-3.json"]),
        (
            ["a.txt", "A.txt", "\u00c4.png", "a\u0308.png"],
            ["a.json", "A-2.json", "\u00c4.json", "a\u0308-2.json"],
        ),
        (
            ["Cats/a.png", "cats/a.png", "cats/b.png"],
            ["Cats/a.json", "cats-2/a.json", "cats-2/b.json"],
        ),
        (["x/\u00e9/a.png", "x/e\u0301/a.png"], ["x/\u00e9/a.json", "x/e\u0301-2/a.json"]),
    ],
)
@pytest.mark.parametrize("way", ["together", "one by one", "by one daemon each"])
def test_equal_on_a_share(root: Root, sources: list[str], paths: list[str], way: str) -> None:
    """Results whose names differ in capitals or in the form of an accent alone would hide each other on a share for
    Windows or macOS, so they are numbered.
    """
    jobs_ = [done(root, source) for source in sources]
    if way == "by one daemon each":
        found = [path for job in jobs_ for path in publish(root, [job])]
    else:
        found = publish(root, *([jobs_] if way == "together" else [[job] for job in jobs_]))

    assert paths == found


def test_failures_equal_on_a_share(root: Root) -> None:
    """So are failures, by their names with their suffixes."""
    batches = [[failed(root, source)] for source in ("A.png", "a.PNG", "a.txt")]

    assert [
        "failed/A.png.error.json",
        "failed/a-2.PNG.error.json",
        "failed/a.txt.error.json",
    ] == publish(root, *batches)


def test_both_are_there(root: Root) -> None:
    """Folders of an earlier fluxdrop that differ in capitals alone stay in use."""
    for name in ("Cats", "cats"):
        for top in (root.outputs, root.generated, root.preprocessed):
            (top / name).mkdir()

    assert ["cats/a.json", "Cats/b.json"] == publish(
        root, [done(root, "cats/a.png"), done(root, "Cats/b.png")]
    )


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("a/b/cat.png", "a/b/cat.json"),
        ("v1.5 final.png", "v1.5 final.json"),
        ("failed/cat.png", "failed-2/cat.json"),
        ("a/failed/cat.png", "a/failed/cat.json"),
        ("failed.png", "failed.json"),
        ("{}{0}%s.png", "{}{0}%s.json"),
        ("x" * 251 + ".png", "x" * 238 + ".json"),
        ("é" * 125 + "x.png", "é" * 119 + ".json"),
        ("日" * 83 + ".png", "日" * 79 + ".json"),
        ("日" * 85 + "/cat.png", "日" * 79 + "/cat.json"),
    ],
)
def test_names(root: Root, source: str, path: str) -> None:
    """A result mirrors its source's path; a name too long for what is added is cut at a character."""
    assert [path] == publish(root, [done(root, source)])


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("a/cat.pdf", "failed/a/cat.pdf.error.json"),
        ("failed/cat.pdf", "failed/failed-2/cat.pdf.error.json"),
        ("cat", "failed/cat.error.json"),
        ("x" * 251 + ".pdf", "failed/" + "x" * 234 + ".pdf.error.json"),
        ("cat." + "x" * 251, "failed/cat." + "x" * 234 + ".error.json"),
    ],
)
def test_names_of_failures(root: Root, source: str, path: str) -> None:
    """A failed input keeps its suffix, unless that is too long to be one."""
    assert [path] == publish(root, [failed(root, source)])


def test_longest_names_are_numbered(root: Root) -> None:
    """Names of 255 bytes that are dropped again and again each have their result."""
    source = "é" * 125 + "x.png"

    paths = publish(root, *([done(root, source), failed(root, source)] for _ in range(12)))

    assert 24 == len(set(paths))
    assert "é" * 119 + "-12.json" == paths[-2]


def test_all_names_of_a_prompt(root: Root) -> None:
    """A prompt's picture lies beside its JSON and its prompt, and is the generated picture's inode."""
    finished = done(root, "cat.txt")

    publish(root, [finished])

    seen = contents(root)
    record = decode(seen.pop("outputs/cat.json").encode())
    assert (finished.job.id, files_of("outputs/cat.json", record)) == (record.job_id, seen)
    assert (root.outputs / "cat.png").samefile(root.generated / "cat.png")


@pytest.mark.parametrize("source", ["cat.jpeg", "cat.JPG", "sub/v1.5 cat.tiff", "cat.PNG"])
def test_a_dropped_picture_stays_what_it_was(root: Root, source: str) -> None:
    """A picture is published with its own suffix and bytes: one file with two names, and no other of it."""
    job = jobs.job_in(jobs.claimed(root, source))

    publish(root, [jobs.done(job)])

    (record,) = records(root).values()
    assert isinstance(record, Result)
    assert f"generated_images/{source}" == record.image.file
    assert (root.outputs / source).samefile(root.generated / source)
    assert f"input of {job.id}" == (root.outputs / source).read_text()
    assert {source, source.rpartition(".")[0] + ".json"} == {
        str(path.relative_to(root.outputs)) for path in root.outputs.rglob("*") if path.is_file()
    } - {"index.html"}


def test_pictures_of_one_stem(root: Root) -> None:
    """Pictures that differ in nothing but their suffix get different NAMEs."""
    publish(root, [done(root, "cat.jpg"), done(root, "cat.png")], [done(root, "cat.tif")])

    assert {"outputs/cat.json", "outputs/cat-2.json", "outputs/cat-3.json"} == set(records(root))
    assert {"cat.jpg", "cat-2.png", "cat-3.tif"} == {path.name for path in root.generated.iterdir()}


@pytest.mark.parametrize(
    "taken",
    [
        "generated_images/cat.png",
        "preprocessed_images/cat.npy",
        "preprocessed_images/cat.png",
        "outputs/cat.png",
        "outputs/cat.json",
        "outputs/cat.txt",
    ],
)
def test_nothing_is_overwritten(root: Root, taken: str) -> None:
    """A single taken name of a NAME's files takes the whole NAME; what has it stays as it was."""
    (root.path / taken).write_text("somebody else's")

    paths = publish(root, [done(root, "cat.txt")])

    assert (["cat-2.json"], "somebody else's") == (paths, contents(root)[taken])


def test_dangling_symlink_takes_a_name(root: Root) -> None:
    """A symlink to nothing takes a name as a file does."""
    (root.outputs / "cat.png").symlink_to("nowhere")

    assert ["cat-2.json"] == publish(root, [done(root, "cat.png")])


@pytest.mark.parametrize("together", [True, False])
def test_folder_named_like_a_file(root: Root, together: bool) -> None:
    """A subfolder that has a result file's name gets a number, and the file keeps its name."""
    batch = [done(root, "cat.png"), done(root, "cat.png/a/dog.png")]

    with publishing(root) as publisher:
        parts = [batch] if together else [[one] for one in batch]
        published = [publisher.publish(part) for part in parts]
        void = [jobs.done(jobs.job_in(folder)) for one in published for folder in one.void]
        publisher.publish(void)

    assert {"outputs/cat.json", "outputs/cat.png-2/a/dog.json"} == set(records(root))


def test_index(root: Root) -> None:
    """The index has each job with its record, and what is published is no longer in work/."""
    finished = done(root, "sub/cat.png")

    publish(root, [finished, failed(root, "x.png")])

    with closing(Store(root.database, read_only=True)) as store:
        row, counts = store.get(finished.job.id), store.counts()
    assert row is not None
    assert ("outputs/sub/cat.json", "round", 0.75) == (row.record, row.label, row.probability)
    assert {"claimed": 0, "done": 1, "failed": 1} == counts
    assert [] == list(root.work.iterdir())


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_input_that_is_no_file(root: Root, make: Callable[[Path], None]) -> None:
    """An input that was exchanged for a FIFO or a symlink is given back as that, and never read."""
    job = jobs.job_in(jobs.claimed(root, "cat.png"))
    job.input.unlink()
    make(job.input)
    mode = job.input.lstat().st_mode

    paths = publish(root, [jobs.failed(job)])

    assert ["failed/cat.png.error.json"] == paths
    assert mode == (root.failed / "cat.png").lstat().st_mode
    assert records(root)["outputs/failed/cat.png.error.json"].source.sha256 is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_input_of_somebody_else() -> None:
    """A file that the daemon may neither read nor link is given back all the same."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Root(Path(folder) / "root")
        root.create()
        job = jobs.job_in(jobs.claimed(root, "cat.png"))
        for path in root.path.rglob("*"):
            os.chown(path, 65534, 65534)
        os.chown(root.path, 65534, 65534)
        os.chown(job.input, 0, 0)
        job.input.chmod(0o600)

        def act() -> int:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            return len(publish(root, [jobs.failed(job)]))

        assert 1 == in_child(act)

        text = (root.failed / "cat.png").read_text()
        assert (f"input of {job.id}", 1) == (text, len(records(root)))


def test_claims_are_durable_before_names(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a file left the inbox is on the disk before its result's names are decided: else a power cut could bring it
    back there, and have it done once more."""
    (root.inbox / "sub").mkdir()
    synced: list[int] = []
    seen: list[set[int]] = []
    real, decide = durable.sync_open_folder, Plans.decide

    def sync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    def watched(plans: Plans, decided: Mapping[str, Plan]) -> None:
        seen.append(set(synced))
        decide(plans, decided)

    monkeypatch.setattr(durable, "sync_open_folder", sync)
    monkeypatch.setattr(Plans, "decide", watched)
    publish(root, [done(root, "a.png"), failed(root, "sub/b.png"), done(root, "gone/c.png")])

    (before,) = seen
    assert {root.inbox.stat().st_ino, (root.inbox / "sub").stat().st_ino} <= before
