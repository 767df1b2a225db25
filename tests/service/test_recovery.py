"""What a daemon that starts makes of the jobs that an earlier one had claimed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.jobs import crash_suspects
from fluxdrop.jobs.job import Job, file_sha256
from fluxdrop.jobs.job import claimed_row as index_row
from fluxdrop.jobs.store import Store
from fluxdrop.publish import links
from fluxdrop.publish.publisher import Publisher
from fluxdrop.records.result import Source, encode
from fluxdrop.service.daemon import Daemon
from support.admissions import Bench
from support.fakes import full
from support.gallery_records import failure
from support.jobs import claimed, claimed_row, done, failed, job_in
from support.published import contents, publish, records
from support.rights import forbid_links_to_inputs
from support.stages import Once


@pytest.fixture
def bench(root: Root) -> Iterator[Bench]:
    """A bench with an index of its own."""
    with closing(Store(root.database)) as store:
        yield Bench(root, store)


@pytest.mark.parametrize("owner", ["keep_claims", "get", "count", "publish"])
def test_recovery_that_has_to_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    """Recovery that a full disk ends is made again: deaths count once for all tries, and each job is admitted once."""
    made = bench.claim("a.png", "b.png")
    bench.die_over(made[0])
    where: dict[str, tuple[Any, str]] = {
        "keep_claims": (bench.store, "keep_claims"),
        "get": (bench.store, "get"),
        "count": (crash_suspects, "_count"),
        "publish": (bench.stages, "publish_planned"),
    }
    real, number = getattr(*where[owner]), iter(range(99))
    # The index is asked for each job: here it fails over the second one, when the first one waits already.
    calls = (1, 3, 5) if owner == "get" else range(3)

    def call(*arguments: Any) -> object:
        if next(number) in calls:
            raise full()
        return real(*arguments)

    monkeypatch.setattr(*where[owner], call)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            bench.admission.recover()
    bench.admission.recover()
    bench.admission.admit()
    bench.admission.remove(made[0].id)
    bench.admission.admit()

    died = crash_suspects.deaths(made[0].folder)
    assert died is not None
    assert (1, ["a.png", "b.png"]) == (died.deaths, bench.admitted)


def decided(bench: Bench, *of: Job) -> None:
    """A daemon is killed when the names of the jobs *of* were decided, and before it gave them."""
    with pytest.MonkeyPatch.context() as killing:
        killing.setattr(Publisher, "perform", Once(KeyboardInterrupt()))
        with suppress(KeyboardInterrupt):
            bench.stages.publisher.publish([done(job) for job in of])
    bench.restart()


def test_recovery_of_decided_names(bench: Bench) -> None:
    """What an earlier run had given its names is published as it was decided, and nothing of it is admitted."""
    decided(bench, *bench.claim("a.png", "b.png"))
    bench.admission.recover()
    bench.admission.admit()

    assert {"outputs/a.json", "outputs/b.json"} == set(records(bench.root))
    assert ([], [], False) == (
        bench.admitted,
        list(bench.root.work.iterdir()),
        bench.admission.busy,
    )


def test_recovery_of_a_moved_input(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed job whose input was moved to its name before a kill is in the index after the next start, once."""
    (job,) = bench.claim("a.pdf")
    forbid_links_to_inputs(monkeypatch)
    with pytest.MonkeyPatch.context() as killing:
        killing.setattr(Store, "finished", Once(KeyboardInterrupt()))
        with suppress(KeyboardInterrupt):
            bench.stages.publisher.publish([failed(job)])
    assert not job.input.exists()
    bench.restart()
    bench.admission.recover()

    row = bench.store.get(job.id)
    assert row is not None
    assert ("failed", "outputs/failed/a.pdf.error.json") == (row.state, row.record)
    assert "a.pdf" == (bench.root.failed / "a.pdf").read_text()
    assert [] == list(bench.root.work.iterdir())


@pytest.mark.parametrize("record", [b"", b"rubbish", None])
def test_recovery_of_a_record_that_cannot_be_read(bench: Bench, record: bytes | None) -> None:
    """A job whose decided record is damaged or gone is admitted anew, without any name; the others of its batch are
    published, and the next recovery is not held up."""
    made = bench.claim("a.png", "b.png", "c.png")
    decided(bench, *made)
    if record is None:
        made[1].record.unlink()
    else:
        made[1].record.write_bytes(record)
    bench.admission.recover()
    bench.admission.admit()
    names = contents(bench.root)

    assert {"outputs/a.json", "outputs/c.json"} == set(records(bench.root))
    assert not any("b.png" in name for name in names)
    # Where the record is gone, that is nothing unforeseen: the folder may have been half emptied.
    defects = [] if record is None else [1]
    assert (["b.png"], defects) == (
        bench.admitted,
        list(bench.stages.context.defects.counts().values()),
    )
    assert bench.stages.publisher.planned(made[1].folder) is None


def test_recovery_of_a_share_that_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that cannot be given yet are waited for, and not taken back."""
    decided(bench, *bench.claim("a.png"))
    fail, real = Once(*[OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * 2), links.link_or_copy

    def give(*arguments: Any) -> None:
        fail()
        real(*arguments)

    monkeypatch.setattr(links, "link_or_copy", give)
    for _ in range(2):
        with pytest.raises(OSError, match="Stale"):
            bench.admission.recover()
    bench.admission.recover()

    assert {"outputs/a.json"} == set(records(bench.root))
    assert [] == bench.admitted


def test_recovery_of_what_has_ended(bench: Bench) -> None:
    """A folder that is left of a job of which the index knows the end is removed."""
    (job,) = bench.add("a.png")
    bench.admission.admit()
    row = bench.store.get(job.id)
    assert row is not None
    bench.store.finished([row._replace(state="done")])
    bench.restart()
    bench.admission.recover()

    assert ([], False) == (list(bench.root.work.iterdir()), bench.admission.busy)


def test_plans_of_what_is_gone(bench: Bench) -> None:
    """A plan whose job has ended, and whose folder a kill left, is forgotten with the folder, so that the file of plans
    does not grow for as long as the daemon runs."""
    (made,) = bench.claim("a.png")
    with pytest.MonkeyPatch.context() as killing:
        killing.setattr(Publisher, "_discard", lambda _publisher, _folder: False)
        bench.stages.publisher.publish([done(made)])
    before = bench.root.plans.read_bytes()
    bench.restart()
    bench.admission.recover()

    assert made.id.encode() in before
    assert (b"", [], False) == (bench.root.plans.read_bytes(), bench.admitted, made.folder.exists())


@pytest.mark.parametrize("has_index", [False, True])
def test_record_of_a_job_that_waits(root: Root, png: bytes, has_index: bool) -> None:
    """A record that somebody put into outputs/ under the id of a job in hand, with the digest of its input, does not
    end the job while the index is made from outputs/, or made anew of an older fluxdrop's: the file is done."""
    folder = claimed(root, "cat.png")
    job = job_in(folder)
    job.input.write_bytes(png)
    if has_index:
        with closing(Store(root.database)) as store:
            store.claimed([claimed_row(job)])
    told = msgspec.structs.replace(
        failure("cat.png"),
        job_id=job.id,
        source=Source(file="cat.png", kind="picture", sha256=file_sha256(job.input)),
    )
    (root.outputs / "forged.json").write_bytes(encode(told))

    Daemon(root, Settings(engine="onnxruntime"), once=True).run()

    assert png == (root.outputs / "cat.png").read_bytes()
    assert ["cat.json", "forged.json"] == sorted(path.name for path in root.outputs.glob("*.json"))


def test_job_that_ended_before_its_index_was_lost(root: Root) -> None:
    """A published job whose folder a kill left is not done again when the index is lost with it."""
    job = job_in(claimed(root, "cat.png"))
    text = job.input.read_text()
    publish(root, [done(job)])
    job.folder.mkdir()
    job.input.write_text(text)
    root.database.unlink()

    Daemon(root, Settings(engine="onnxruntime"), once=True).run()

    assert ["cat.json"] == [path.name for path in root.outputs.glob("*.json")]
    assert not job.folder.exists()


def test_division_that_was_cut_off(bench: Bench) -> None:
    """The folders that were made for the parts of a file whose division a kill cut off are removed, and the file's job
    is done from its beginning."""
    (job,) = bench.claim("a.txt")
    part = job.folder.with_name(f"{job.id}-2")
    shutil.copytree(job.folder, part)
    bench.admission.recover()
    bench.admission.admit()

    assert ["a.txt"] == bench.admitted
    assert (True, False) == (job.folder.exists(), part.exists())


def test_input_that_is_moved_by_its_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose input was moved to its final name while its plan was completed, which then failed, is not begun: its
    folder holds no claim any more."""
    (job,) = bench.claim("a.png")
    decided(bench, job)

    def move(_folders: Any) -> None:
        if job.input.exists():
            job.input.rename(bench.root.failed / "a.png")
        raise KeyError("odd")

    monkeypatch.setattr(bench.stages, "publish_planned", move)
    bench.admission.recover()
    bench.admission.admit()

    assert ([], False) == (bench.admitted, job.folder.exists())
    assert (bench.root.failed / "a.png").exists()


def test_both_names_of_a_claim(bench: Bench) -> None:
    """A claimed file that a power cut left its name in the inbox, too, is one drop: that name goes. Another file of
    that name stays."""
    one, other = bench.claim("a.png", "sub/b.png")
    (bench.root.inbox / "sub").mkdir()
    (bench.root.inbox / "a.png").hardlink_to(one.input)
    (bench.root.inbox / "sub/b.png").write_text("another file")
    bench.restart()
    bench.admission.recover()

    assert ["sub/b.png"] == [
        str(path.relative_to(bench.root.inbox))
        for path in bench.root.inbox.rglob("*")
        if path.is_file()
    ]
    assert one.input.exists()
    assert other.input.exists()


def test_both_names_of_a_published_file(bench: Bench, samples: Path) -> None:
    """A published file that a power cut gave its name in the inbox back, too, is one drop: that name goes, and the
    result stays. A copy of it under that name, and its own link under another, are new drops and stay."""
    inbox, outputs = bench.root.inbox, bench.root.outputs
    made = bench.claim("a.png", "sub/b.png", "c.png", "d.png")
    for job, data in zip(made, samples.glob("*_0?.png"), strict=False):
        job.input.write_bytes(data.read_bytes())
    bench.store.claimed(map(index_row, made))
    ends = [failed(made[0]), failed(made[1]), failed(made[2]), failed(made[3])]
    bench.stages.publisher.publish(ends)
    (inbox / "sub").mkdir()
    (inbox / "a.png").hardlink_to(outputs / "failed/a.png")
    (inbox / "sub/b.png").hardlink_to(outputs / "failed/sub/b.png")
    (inbox / "c.png").write_bytes((outputs / "failed/c.png").read_bytes())
    (inbox / "again.png").hardlink_to(outputs / "failed/d.png")
    before = contents_of(outputs)
    bench.restart()
    bench.admission.recover()

    assert 2 == len(list(bench.root.refused.iterdir()))
    assert ["again.png", "c.png"] == sorted(path.name for path in inbox.rglob("*.png"))
    assert before == contents_of(outputs)


def test_published_file_that_is_dropped_again(bench: Bench) -> None:
    """A failed file that its owner moves back into the inbox later is another drop, whatever link to it strangers put
    where it was published."""
    (made,) = bench.claim("a.png")
    bench.store.claimed([index_row(made)])
    bench.stages.publisher.publish([failed(made)])
    (row,) = bench.store.latest("failed", 1)
    bench.store.finished([row._replace(finished="2026-01-01T00:00:00.000Z")])
    (bench.root.failed / "a.png").rename(bench.root.inbox / "a.png")
    (bench.root.failed / "a.png").hardlink_to(bench.root.inbox / "a.png")
    bench.restart()
    bench.admission.recover()

    assert (bench.root.inbox / "a.png").exists()


def test_doctored_source(bench: Bench) -> None:
    """A row whose source leads out of the inbox has nothing removed there."""
    (made,) = bench.claim("a.png")
    bench.store.claimed([index_row(made)._replace(source="../kept.png")])
    bench.stages.publisher.publish([failed(made)])
    kept = bench.root.path / "kept.png"
    kept.hardlink_to(bench.root.failed / "a.png")
    bench.restart()
    bench.admission.recover()

    assert kept.exists()


def contents_of(folder: Path) -> dict[str, bytes]:
    """The files in *folder* by their paths."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_attempts_of_a_lost_index(bench: Bench) -> None:
    """The index tells as many attempts as the record does, also where a power cut lost what it knew of them."""
    (made,) = bench.claim("a.png")
    made.attempts = 2
    bench.store.claimed([claimed_row(made)])
    bench.stages.publisher.publish([done(made)])
    row = bench.store.get(made.id)

    assert row is not None
    assert ("done", 2) == (row.state, row.attempts)


def test_closed_folder_of_a_claim(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the inbox that its owner closed after a file of it was claimed keeps the daemon from no recovery."""
    bench.claim("sub/a.png")
    bench.restart()

    def closed(_inbox: Path, _folder: str) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "sub")

    monkeypatch.setattr("fluxdrop.jobs.claim.open_folder", closed)
    bench.admission.recover()
    bench.admission.admit()

    assert ["sub/a.png"] == bench.admitted
