"""Publishing with a publisher of the test's own, and what of it people see."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import PurePosixPath

from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from fluxdrop.publish.outcome import Finished
from fluxdrop.publish.publisher import Publisher
from fluxdrop.records.result import Failure, Record, decode
from support import jobs


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
    """The job of a new input *source*, come through."""
    return jobs.done(jobs.job_in(jobs.claimed(root, source)))


def failed(root: Root, source: str) -> Finished:
    """The job of a new input *source*, failed."""
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
    """The records in *root*, by their paths."""
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
    suffix = ".png" if is_prompt else PurePosixPath(record.source.file).suffix
    files = {
        f"generated_images/{name}{suffix}": image,
        f"outputs/{name}{suffix}": image,
        f"preprocessed_images/{name}.npy": f"tensor of {job}",
        f"preprocessed_images/{name}.png": f"preview of {job}",
    }
    return files | ({f"outputs/{name}.txt": f"input of {job}"} if is_prompt else {})


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
