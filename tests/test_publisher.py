"""Publishing: names, and what a kill, a full disk or somebody else's file does to it."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jobs
import pytest

from fluxdrop.jobs.store import Store
from fluxdrop.layout import Root
from fluxdrop.publish.publisher import PLAN, Finished, Publisher
from fluxdrop.publish.result import Failure, Record, decode

CHANGING = {"link", "rename", "replace", "unlink", "remove", "rmdir", "mkdir"}
CHANGING |= {"open", "write", "fsync", "execute", "executemany"}
SOURCES = ("cat.png", "cat.txt", "sub/cat.pdf")


@contextmanager
def publishing(root: Root) -> Iterator[Publisher]:
    """A publisher, and the index it writes, for as long as the body runs."""
    with closing(Store(root.database)) as store:
        yield Publisher(root, store)


def publish(root: Root, *batches: Sequence[Finished]) -> list[str]:
    """Publish *batches* one after the other; the paths of the records below outputs/."""
    with publishing(root) as publisher:
        published = [publisher.publish(batch) for batch in batches]
    return [path.removeprefix("outputs/") for one in published for _, path in one.records]


def done(root: Root, source: str) -> Finished:
    return jobs.done(jobs.job_in(jobs.claimed(root, source)))


def failed(root: Root, source: str) -> Finished:
    return jobs.failed(jobs.job_in(jobs.claimed(root, source)))


def contents(root: Root) -> dict[str, str]:
    """What people see in *root*, but for the inbox: each file's path and text."""
    return {
        str(path.relative_to(root.path)): path.read_text()
        for folder in (root.generated, root.preprocessed, root.outputs)
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def records(root: Root) -> dict[str, Record]:
    return {
        str(path.relative_to(root.path)): decode(path.read_bytes())
        for path in root.outputs.rglob("*.json")
    }


def files_of(path: str, record: Record) -> dict[str, str]:
    """The files that belong to *record*, which lies at *path*."""
    job = record.job_id
    if isinstance(record, Failure):
        return {path.removesuffix(".error.json"): f"input of {job}"}
    is_prompt = record.source.kind == "prompt"
    image = f"{'image' if is_prompt else 'input'} of {job}"
    name = path.removeprefix("outputs/").removesuffix(".json")
    files = {
        f"generated_images/{name}.png": image,
        f"outputs/{name}.png": image,
        f"preprocessed_images/{name}.npy": f"tensor of {job}",
        f"preprocessed_images/{name}.png": f"preview of {job}",
    }
    return files | ({f"outputs/{name}.txt": f"input of {job}"} if is_prompt else {})


@pytest.mark.parametrize("together", [True, False])
def test_equal_names(root: Root, together: bool) -> None:
    """The n-th result of a name gets -n, in one batch as across batches, whatever its suffix was."""
    batch = [done(root, source) for source in ("cat.png", "cat.txt", "cat.png", "cat.jpg")]

    paths = publish(root, *([batch] if together else [[one] for one in batch]))

    assert ["cat.json", "cat-2.json", "cat-3.json", "cat-4.json"] == paths


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


def test_original_is_kept(root: Root) -> None:
    """A picture that was converted lies untouched beside what it was converted to."""
    job = jobs.job_in(jobs.claimed(root, "cat.jpeg"))

    publish(root, [jobs.done(job, original_suffix=".jpg")])

    seen = contents(root)
    assert (f"input of {job.id}", f"image of {job.id}") == (
        seen["outputs/cat.jpg"],
        seen["outputs/cat.png"],
    )


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
    finished = failed(root, "cat.png")
    finished.job.input.unlink()
    make(finished.job.input)
    mode = finished.job.input.lstat().st_mode

    paths = publish(root, [finished])

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


def test_torn_plan(root: Root) -> None:
    """A plan that a power cut tore is none: no name was given by it."""
    finished = done(root, "cat.png")
    (finished.job.folder / PLAN).write_bytes(b'{"links": [["inp')

    assert ["cat.json"] == publish(root, [finished])


def test_rubbish_of_a_kill_goes(root: Root) -> None:
    """What a kill left of a published job's folder is gone after the next start."""
    rubbish = root.state / "rubbish" / "job" / "input"
    rubbish.mkdir(parents=True)
    (rubbish / "cat.png").touch()

    with publishing(root):
        pass

    assert [] == list((root.state / "rubbish").iterdir())


# What follows runs in forked processes that count their changing calls and end, or fail, at one.


def in_child(act: Callable[[], int | None]) -> int:
    """Run *act* in a forked process; what it returns, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = act() or 0
        except BaseException:
            sys.setprofile(None)
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Trap:
    """Does *what* before the *call*-th call from `set` on that changes something; counts them."""

    def __init__(self, what: Callable[[], None], call: int) -> None:
        self._what = what
        self._call = call
        self.calls = 0

    def set(self) -> None:
        sys.setprofile(self._note)

    def _note(self, _frame: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in CHANGING:
            self.calls += 1
            if self.calls == self._call:
                self._what()


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def forbid_links() -> None:
    """Let os.link fail for the rest of this process as it does on exFAT."""

    def hook(event: str, _arguments: object) -> None:
        if event == "os.link":
            raise PermissionError(errno.EPERM, "Operation not permitted")

    sys.addaudithook(hook)


@contextmanager
def root_with_jobs() -> Iterator[Root]:
    """A root on the fastest disk there is, with a claimed job for each of SOURCES."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        root = Root(Path(folder))
        root.create()
        rows = [jobs.claimed_row(jobs.job_in(jobs.claimed(root, name))) for name in SOURCES]
        with closing(Store(root.database)) as store:
            store.claimed(rows)
        yield root


def publish_all(root: Root, trap: Trap) -> int:
    """Publish as the stage does, which tries the same batch again; how many calls that took."""
    batch = [jobs.ended(jobs.job_in(folder)) for folder in root.work.iterdir()]
    with publishing(root) as publisher:
        trap.set()
        try:
            publisher.publish(batch)
        except OSError:
            publisher.publish(batch)
        sys.setprofile(None)
    return trap.calls


def start_again(root: Root, trap: Trap | None = None) -> int:
    """What the daemon does at its start: end what was decided, and do the rest from its input."""
    if trap is not None:
        trap.set()
    with publishing(root) as publisher:
        planned = [(folder, publisher.planned(folder)) for folder in root.work.iterdir()]
        publisher.perform([(folder, plan) for folder, plan in planned if plan is not None])
        for folder in root.work.iterdir():
            publisher.publish([jobs.ended(jobs.job_in(folder))])
    return 0


def assert_nothing_torn(root: Root) -> None:
    """Every visible file is whole, and a record is there only with all of its files."""
    seen = contents(root)
    for path, record in records(root).items():
        assert files_of(path, record).items() <= seen.items()
    texts = [text for path, text in seen.items() if not path.endswith((".json", ".tmp"))]
    assert [] == [text for text in texts if not re.fullmatch(r"\w+ of \w{15}-\w{8}", text)]


def assert_all_published(root: Root) -> None:
    """Each job has exactly one result with its files, and nothing else is anywhere."""
    found = records(root)
    expected: dict[str, str] = {}
    for path, record in found.items():
        expected |= files_of(path, record)
    with closing(Store(root.database)) as store:
        counts = store.counts()
        rows = [store.get(record.job_id) for record in found.values()]
    assert sorted(SOURCES) == sorted(record.source.file for record in found.values())
    assert {"claimed": 0, "done": 2, "failed": 1} == counts
    assert list(found) == [row and row.record for row in rows]
    assert expected == {path: text for path, text in contents(root).items() if path not in found}
    assert [] == [*root.work.iterdir(), *(root.state / "rubbish").iterdir()]


@pytest.mark.parametrize("has_links", [True, False])
def test_kill_at_every_call(has_links: bool) -> None:
    """Killed before any call that changes something, and again in the next start, no job is lost,
    torn or there twice; with hard links, and with copies where there are none."""
    chance = random.Random(2026)

    def on_its_filesystem(act: Callable[..., int], *arguments: object) -> int:
        def acting() -> int:
            if not has_links:
                forbid_links()
            return act(*arguments)

        return in_child(acting)

    with root_with_jobs() as root:
        calls = on_its_filesystem(publish_all, root, Trap(fail, 0))
    for call in range(1, calls + 1):
        with root_with_jobs() as root:
            ended = on_its_filesystem(publish_all, root, Trap(kill_oneself, call))
            assert -signal.SIGKILL == ended
            assert_nothing_torn(root)
            on_its_filesystem(start_again, root, Trap(kill_oneself, chance.randint(1, 60)))
            assert_nothing_torn(root)
            assert 0 == on_its_filesystem(start_again, root)
            assert_all_published(root)


def test_failure_at_every_call() -> None:
    """A passing trouble with the disk at any call: the same batch again ends as the first would."""
    with root_with_jobs() as root:
        calls = in_child(partial(publish_all, root, Trap(fail, 0)))
    for call in range(1, calls + 1):
        with root_with_jobs() as root:
            assert call <= in_child(partial(publish_all, root, Trap(fail, call)))
            in_child(partial(start_again, root))
            assert_all_published(root)


@pytest.mark.parametrize("in_the_way", ["generated_images/cat.png", "outputs/cat.json"])
def test_file_in_the_way_of_a_plan(root: Root, in_the_way: str) -> None:
    """A file that took a name after it was decided stays; the plan is void, the names given by it
    are taken back, and the job gets another NAME."""
    finished = done(root, "cat.txt")

    def die_when_decided() -> int:
        sys.addaudithook(lambda event, _: kill_oneself() if event == "os.link" else None)
        return len(publish(root, [finished]))

    assert -signal.SIGKILL == in_child(die_when_decided)
    (root.path / in_the_way).write_text("somebody else's")

    with publishing(root) as publisher:
        folder = finished.job.folder
        plan = publisher.planned(folder)
        assert plan is not None
        published = publisher.perform([(folder, plan)])
        between = contents(root)
        publisher.publish([jobs.done(jobs.job_in(folder))])

    assert ([], [folder]) == (published.records, published.void)
    assert {in_the_way: "somebody else's"} == between
    seen = contents(root)
    record = decode(seen.pop("outputs/cat-2.json").encode())
    assert {**files_of("outputs/cat-2.json", record), in_the_way: "somebody else's"} == seen
