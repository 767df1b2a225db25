"""No file is opened by a predictable name that follows a link: symlinks, FIFOs and folders in the
place of every fixed name, before a daemon starts and while it serves.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import GALLERY, Root, RootLock
from fluxdrop.gallery.gallery import Gallery
from fluxdrop.jobs.store import Store
from fluxdrop.publish.plans import Plan, Plans
from fluxdrop.records.outputs import records
from fluxdrop.requests.replay import build_replay, plan_replay
from support.daemons import PATIENCE, Daemon, fluxdrop, results, serving, started
from support.gallery_records import place, result
from support.intruders import FILE_WAYS, FOLDER_WAYS, Outside, intrude
from support.published import done, failed, publish

FIXED = ["lock", "plans.jsonl", "daemon.json", "gallery.lock", "model", "in-preprocess"]
FIXED += ["in-predict", "jobs.sqlite3", "jobs.sqlite3-wal", "logs/fluxdrop.log"]
FOLDERS = ["work", "spares", "requests", "refused", "logs", "graphs", "models", "answers"]
QUICK = {"engine": "onnxruntime", "settle_seconds": 0.1, "scan_seconds": 1, "log_level": "error"}


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def drop(root: Root, name: str, data: bytes) -> None:
    target = root.inbox / name
    target.parent.mkdir(exist_ok=True)
    part = root.path / "part"
    part.write_bytes(data)
    part.rename(target)


@contextmanager
def serving_still(root: Root, png: bytes) -> Iterator[Daemon]:
    """A daemon that did one picture, and has to do another after the body."""
    with serving(root, **QUICK) as daemon:
        drop(root, "first.png", png)
        daemon.wait_for_ends(1)
        yield daemon
        drop(root, "second.png", png)
        daemon.wait_until(lambda: "second.json" in results(root), "the second picture")


@pytest.mark.parametrize("way", FILE_WAYS)
@pytest.mark.parametrize("name", FIXED)
def test_before_a_start(root: Root, outside: Outside, name: str, way: str) -> None:
    """What is no file of fluxdrop's own in the place of one is refused at the start with its name, and
    neither followed nor waited for."""
    intrude(root.state / name, way, outside)

    with pytest.raises(FluxdropError, match=name.rpartition("/")[2]) as caught:
        root.create()

    assert "Move it away" in caught.value.hint
    outside.assert_same()


@pytest.mark.parametrize("way", FOLDER_WAYS)
@pytest.mark.parametrize("name", ["", *FOLDERS])
def test_folders_before_a_start(root: Root, outside: Outside, name: str, way: str) -> None:
    """A folder of .fluxdrop/, or itself, that is a symlink or no folder is refused at the start."""
    intrude(root.state / name, way, outside)

    with pytest.raises(FluxdropError, match=f"{name or '.fluxdrop'} has to be a folder"):
        root.create()

    outside.assert_same()


@pytest.mark.parametrize("name", ["lock", "plans.jsonl", "logs", "jobs.sqlite3"])
def test_refusal_of_a_command(root: Root, outside: Outside, name: str) -> None:
    """`fluxdrop run` says so in one sentence."""
    intrude(root.state / name, "symlink to file", outside)

    ran = fluxdrop("run", "--root", root.path, "--once", **QUICK)

    assert 2 == ran.returncode
    assert "Traceback" not in ran.stderr
    assert f"{name} has to be a" in ran.stderr.replace("\n", " ")
    outside.assert_same()


def test_temporaries_cannot_be_foreseen(root: Root, outside: Outside, png: bytes) -> None:
    """Links with the names that a temporary could have had lead nowhere."""
    for folder, name in (
        (root.state, ".daemon.json.tmp"),
        (root.state, ".model.tmp"),
        (root.outputs, ".index.html.tmp"),
        (root.inbox, ".fluxdrop.tmp"),
        (root.work, ".fluxdrop.tmp"),
    ):
        (folder / name).symlink_to(outside.file)
    with serving_still(root, png) as daemon:
        daemon.wait_until(lambda: (root.outputs / "index.html").exists(), "the gallery")

    outside.assert_same()


@pytest.mark.parametrize("way", FILE_WAYS)
def test_while_it_serves(root: Root, outside: Outside, png: bytes, way: str) -> None:
    """Whatever takes the places of its files while a daemon serves, it goes on, and follows nothing;
    its own plans are written anew. Only its lock is the one thing that it must not be without."""
    with serving_still(root, png):
        for name in FIXED:
            # SQLite goes on with the files that it has open.
            if name != "lock" and "sqlite" not in name:
                intrude(root.state / name, way, outside)

    outside.assert_same()


@pytest.mark.parametrize("way", ["symlink to file", "fifo", "folder"])
def test_lock_taken_away(root: Root, outside: Outside, png: bytes, way: str) -> None:
    """Without its lock in its place a daemon claims nothing more, and says so; nothing is followed."""
    with serving(root, **QUICK) as daemon:
        drop(root, "first.png", png)
        daemon.wait_for_ends(1)
        intrude(root.lock, way, outside)
        daemon.wait_until(lambda: "state: " in root.heartbeat.read_text(), "the reason")

    with pytest.raises(FluxdropError, match="lock"), closing(RootLock(root)):
        pass
    outside.assert_same()


@pytest.mark.parametrize("ours", [GALLERY, f"{GALLERY}/thumbnails"])
@pytest.mark.parametrize("way", ["symlink to folder", "fifo", "file"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_folders_of_outputs(
    root: Root, outside: Outside, png: bytes, when: str, way: str, ours: str
) -> None:
    """What has the name of one of the folders that fluxdrop makes in outputs/ is moved aside, whole,
    and results, failures and the gallery come as ever; a subfolder's name is numbered."""

    def intrude_all() -> None:
        for name in ("failed", "sub", ours):
            path = root.outputs / name
            path.parent.mkdir(exist_ok=True)
            intrude(path, way, outside)

    if when == "before":
        intrude_all()
    with serving_still(root, png) as daemon:
        if when == "meanwhile":
            drop(root, "sub/earlier.png", png)
            daemon.wait_for_ends(2)
            intrude_all()
        drop(root, "bad.png", b"no picture")
        drop(root, "sub/third.png", png)
        large = root.path / "large.png"
        Image.effect_noise((1200, 1200), 64).save(large)
        drop(root, "large.png", large.read_bytes())
        for path in ("failed/bad.png", "sub-2/third.json", "large.json"):
            daemon.wait_until((root.outputs / path).exists, path)
        thumbnails = root.outputs / GALLERY / "thumbnails"
        daemon.wait_until(lambda: not thumbnails.is_symlink(), "the thumbnails' own folder")
        daemon.wait_until(lambda: any(thumbnails.rglob("*.webp")), "the thumbnail")
        daemon.wait_until(lambda: (root.outputs / GALLERY / "summary.js").exists(), "the gallery")

    asides = {path.name for path in root.outputs.rglob("*-not-ours-1")}
    assert {"failed-not-ours-1", f"{Path(ours).name}-not-ours-1"} <= asides
    outside.assert_same()


@pytest.mark.parametrize("way", ["symlink to file", "fifo", "folder", "huge"])
@pytest.mark.parametrize("name", ["index.html", f"{GALLERY}/summary.js", "page"])
def test_files_of_the_gallery(
    root: Root, outside: Outside, samples: Path, name: str, way: str
) -> None:
    """A file of the gallery that another thing has taken the place of is made anew or told, and never
    waited for, followed or read whole."""
    told = [
        place(root, result(f"p{n}", n), f"p{n}", samples / "round_ring_01.png") for n in range(3)
    ]
    index = [(record.job_id, path) for record, path in told]
    Gallery(root).catch_up(index)
    path = root.outputs / name
    if name == "page":
        (path,) = (root.outputs / GALLERY).glob("*/00000.js")
    if way == "huge":
        os.truncate(path, 1 << 40)
    else:
        intrude(path, way, outside)

    with pytest.raises(FluxdropError) if name == "index.html" else nullcontext():
        Gallery(root).catch_up(index)

    outside.assert_same()


@pytest.mark.parametrize("job_id", ["../../../outside/x", "/etc/x", "..", "a/b", "x" * 5000, ""])
def test_doctored_job_id(root: Root, outside: Outside, job_id: str) -> None:
    """A result with a job id that is a path is none, whoever reads it; no thumbnail goes astray."""
    large = root.path / "large.png"
    Image.effect_noise((1200, 1200), 64).save(large)
    record = result("cat", 1)
    image = msgspec.structs.replace(record.image, width=1200, height=1200)
    doctored = msgspec.structs.replace(record, job_id=job_id, image=image)
    _, path = place(root, doctored, "cat", large)
    before = {path for path in root.path.parent.rglob("*") if GALLERY not in str(path)}
    gallery = Gallery(root)
    for known in (job_id, record.job_id):
        gallery.catch_up([(known, path)])
    gallery.add([(doctored, path)])
    gallery.rebuild()

    after = {path for path in root.path.parent.rglob("*") if GALLERY not in str(path)}
    assert {root.state / "gallery.lock", root.outputs / "index.html"} == after - before
    assert [] == list(root.path.rglob("*.webp"))
    assert [] == list(records(root))
    outside.assert_same()


def test_editions_and_days_that_lead_elsewhere(root: Root, outside: Outside) -> None:
    """What a rebuild cleans away is its own: behind a link with such a name nothing is touched."""
    Gallery(root).rebuild()
    folder = root.outputs / GALLERY
    (folder / "thumbnails").mkdir()
    (folder / "0123abcd").symlink_to(outside.folder)
    (folder / "thumbnails" / "20260101").symlink_to(outside.folder / "sub" / "20260101")
    Gallery(root).rebuild()
    Gallery(root).catch_up([])

    outside.assert_same()


def test_thumbnail_of_a_private_picture(root: Root, outside: Outside, tmp_path: Path) -> None:
    """A symlink among the results shows nothing of what lies behind it."""
    private = tmp_path / "private"
    private.mkdir()
    Image.effect_noise((1200, 1200), 64).save(private / "cat.png")
    record = result("sub/cat", 1)
    image = msgspec.structs.replace(record.image, width=1200, height=1200)
    record = msgspec.structs.replace(record, image=image)
    (private / "cat.json").write_bytes(msgspec.json.encode(record))
    (root.outputs / "sub").symlink_to(private)
    Gallery(root).catch_up([(record.job_id, "outputs/sub/cat.json")])
    Gallery(root).rebuild()
    shown = list((root.outputs / GALLERY).glob("*/00000.js"))

    assert [] == list(root.outputs.rglob("*.webp"))
    assert [] == shown


def test_replay_through_a_link(root: Root, tmp_path: Path) -> None:
    """A replay takes no input from behind a link that somebody put among the results, also after it was planned."""
    finished = done(root, "sub/cat.png")
    publish(root, [finished])
    with closing(Store(root.database, read_only=True)) as store:
        row = store.get(finished.job.id)
    assert row is not None
    planned = plan_replay(root, row)
    (root.outputs / "sub").rename(tmp_path / "private")
    (root.outputs / "sub").symlink_to(tmp_path / "private")
    making = root.work / ".making-one"
    with pytest.raises(FluxdropError, match="a folder on the way is gone or is a symlink"):
        build_replay(root, planned, making, 1000)
    with pytest.raises(FluxdropError, match="a folder on the way is gone or is a symlink"):
        plan_replay(root, row)

    assert all(not path.stat().st_size for path in making.iterdir())


@pytest.mark.parametrize("target", ["outputs/sub", "generated_images/sub", "outputs/failed"])
def test_swapped_between_plan_and_name(root: Root, outside: Outside, target: str) -> None:
    """A folder that becomes a link after the names were decided gets nothing: the plan is void, or
    the folder is made anew."""
    finished = [done(root, "sub/cat.png"), failed(root, "dog.png")]
    publish(root, [done(root, "sub/earlier.png"), failed(root, "earlier.png")])
    decide = Plans.decide

    def decide_and_swap(plans: Plans, decided: Mapping[str, Plan]) -> None:
        decide(plans, decided)
        shutil.rmtree(root.path / target)
        (root.path / target).symlink_to(outside.folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plans, "decide", decide_and_swap)
        publish(root, finished)

    outside.assert_same()


def test_folders_swapped_all_the_time(root: Root, outside: Outside) -> None:
    """With outputs/sub turned into a link and back as fast as can be, every result still lies in a
    folder below outputs/, and nothing elsewhere."""
    stop = threading.Event()
    sub, link = root.outputs / "sub", root.outputs / "link"
    sub.mkdir()
    link.symlink_to(outside.folder)

    def turn() -> None:
        exchange = ctypes.CDLL(None).renameat2
        while not stop.is_set():
            exchange(_AT_FDCWD, os.fsencode(sub), _AT_FDCWD, os.fsencode(link), _RENAME_EXCHANGE)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        for number in range(40):
            publish(root, [done(root, f"sub/{number}.png")])
    finally:
        stop.set()
        thread.join()

    outside.assert_same()
    left = list(root.work.iterdir())
    assert 40 == len(list(records(root))) + len(left)


def test_killed_and_swept(root: Root) -> None:
    """What a daemon that was killed left half written in .fluxdrop/ and in the gallery, the next start
    removes."""
    torn = ".0123456789abcdef.fluxdrop.tmp"
    day = root.outputs / GALLERY / "thumbnails" / "20260101"
    day.mkdir(parents=True)
    places = [root.state, root.answers, root.outputs / GALLERY, day]
    for folder in places:
        (folder / torn).write_bytes(b"half")
    with started(root, "--once", **QUICK) as daemon:
        assert 0 == daemon.process.wait(PATIENCE)

    assert [] == [folder for folder in places if (folder / torn).exists()]
