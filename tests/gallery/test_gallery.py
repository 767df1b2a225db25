"""The gallery's files: whole after anything, each job in them once, little rewritten for one more."""

from __future__ import annotations

import hashlib
import re
import signal
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import GALLERY, Root
from fluxdrop.gallery.data_pages import PAGE_ENTRIES, Pages
from fluxdrop.gallery.entry import Entry, entry_of
from fluxdrop.gallery.gallery import Gallery, page_of
from fluxdrop.gallery.html_page import render
from fluxdrop.gallery.thumbnail import thumbnail_of
from fluxdrop.jobs.store import Store
from fluxdrop.records.result import Record
from support.daemons import fluxdrop, serving
from support.gallery_records import failure, fill, job_id, on_host, path_of, place, result

pytestmark = pytest.mark.slow

Told = list[tuple[Record, str]]


@pytest.fixture
def picture(samples: Path) -> Path:
    """A picture that is its own thumbnail."""
    return samples / "round_circle_01.png"


@pytest.fixture
def told(root: Root, picture: Path) -> Told:
    """More than a page of jobs that have ended in *root*, with their files."""
    names = [f"p{number:03}" for number in range(PAGE_ENTRIES + 10)]
    return [place(root, result(name, at), name, picture) for at, name in enumerate(names)]


def shown(root: Root) -> list[Entry]:
    """All that the gallery of *root* shows."""
    with closing(root.open_outputs()) as folders:
        pages = Pages(folders)
        summary = pages.summary()
        assert summary is not None
        entries = list(pages.entries(summary))
    assert len(entries) == summary.total == sum(summary.states.values())
    return entries


def index(told: Told) -> list[tuple[str, str]]:
    """What the index says of *told*."""
    return [(record.job_id, path) for record, path in told]


def ids(told: Told) -> list[str]:
    """The jobs of *told*."""
    return [record.job_id for record, _ in told]


def contents(root: Root) -> dict[str, bytes]:
    """Every file of the gallery."""
    folder = root.outputs / GALLERY
    files = [page_of(root), *(path for path in folder.rglob("*") if path.is_file())]
    return {path.name: path.read_bytes() for path in files}


def test_add_rewrites_little(root: Root, picture: Path) -> None:
    """With thousands of results, one more rewrites the last page and the summary, and nothing else."""
    fill(root, 20 * PAGE_ENTRIES + 20, picture)
    gallery = Gallery(root)
    gallery.catch_up([])
    before = contents(root)

    assert gallery.add([(result("new", 100_000), "outputs/new.json")])
    after = contents(root)

    assert {"00020.js", "summary.js"} == {name for name in after if after[name] != before[name]}


def test_shows_each_once(root: Root, told: Told) -> None:
    """What was caught up with and is then told again is shown once, in the order of its end."""
    gallery = Gallery(root)
    gallery.catch_up(index(told[:-1]))

    assert gallery.add(told[-2:])
    assert ids(told) == [entry.id for entry in shown(root)]


def spoil(path: Path, start: bytes) -> None:
    """Put what is no UTF-8 behind the first *start* in the file *path*."""
    data = path.read_bytes()
    assert start in data
    path.write_bytes(data.replace(start, start + b"\xff", 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("*/00000.js")).unlink(),
        lambda folder: next(folder.glob("*/00001.js")).write_bytes(b""),
        lambda folder: next(folder.glob("*/00000.js")).write_bytes(b"fluxdrop.page("),
        lambda folder: spoil(next(folder.glob("*/00000.js")), b'"id":"'),
        lambda folder: spoil(folder / "summary.js", b'"title":"'),
        lambda folder: (folder / "summary.js").write_bytes(b""),
        lambda folder: (folder / "summary.js").unlink(),
    ],
    ids=[
        "page gone",
        "last page empty",
        "page torn",
        "page spoiled",
        "summary spoiled",
        "summary empty",
        "summary gone",
    ],
)
def test_damage(root: Root, told: Told, damage: Callable[[Path], None]) -> None:
    """Whatever a power cut or a person did to the gallery's files, the next start makes it whole."""
    Gallery(root).catch_up(index(told))
    damage(root.outputs / GALLERY)

    Gallery(root).catch_up(index(told))

    assert ids(told) == [entry.id for entry in shown(root)]
    assert 1 == len([path for path in (root.outputs / GALLERY).iterdir() if path.is_dir()])


def test_page_without_summary(root: Root, told: Told) -> None:
    """Entries whose page was written, and then the process killed, are shown once at the end."""
    gallery = Gallery(root)
    gallery.catch_up(index(told[:-3]))
    summary = (root.outputs / GALLERY / "summary.js").read_bytes()
    gallery.add(told[-3:])
    (root.outputs / GALLERY / "summary.js").write_bytes(summary)

    Gallery(root).catch_up(index(told))

    assert ids(told) == [entry.id for entry in shown(root)]


def test_rebuild_forgets_what_was_deleted(root: Root, told: Told) -> None:
    """`fluxdrop gallery` shows what is there, passes over foreign JSON, and says how much it is."""
    Gallery(root).catch_up(index(told))
    (root.path / told[0][1]).unlink()
    (root.outputs / "notes.json").write_text("{}")

    ran = fluxdrop("gallery", "--root", root.path, "--json")

    assert 0 == ran.returncode, ran.stderr
    assert f'"results": {len(told) - 1}' in ran.stdout
    assert ids(told[1:]) == [entry.id for entry in shown(root)]


def test_rebuilt_by_another(root: Root, told: Told) -> None:
    """A daemon whose gallery was made anew meanwhile notices, and then shows each job once."""
    gallery = Gallery(root)
    gallery.catch_up(index(told[:5]))
    Gallery(root).rebuild()

    assert not gallery.add(told[5:])
    gallery.catch_up(index(told))

    assert ids(told) == [entry.id for entry in shown(root)]


def test_page_of_somebody_else(root: Root) -> None:
    """An index.html that is not the gallery's is left as it is."""
    page_of(root).write_text("<h1>Our group</h1>")

    with pytest.raises(FluxdropError, match=r"index\.html is not the gallery's"):
        Gallery(root).rebuild()

    assert "<h1>Our group</h1>" == page_of(root).read_text()


def test_hostile_texts_stay_data(root: Root, picture: Path) -> None:
    """In the scripts, no text can end a string, a line or a script: all is ASCII, and no "<"."""
    prompt = '</script><script>alert(1)</script>\u2028\u2029"\\\n<!--'
    place(root, result("a", 1, prompt=prompt), "a", picture)
    place(root, failure("b", 2, message=prompt), "b", picture)

    Gallery(root).rebuild()
    scripts = b"".join(path.read_bytes() for path in (root.outputs / GALLERY).rglob("*.js"))
    entries = shown(root)

    assert scripts.isascii()
    assert b"<" not in scripts
    assert [prompt, ""] == [entry.prompt for entry in entries]
    assert entries[1].error is not None
    assert prompt == entries[1].error.message


def test_host() -> None:
    """A card's details, in which the page searches, name the host that made the picture; others name none."""
    entries = [
        entry_of(record, "a.json", "picture")
        for record in (on_host(result("a"), "gpu-1"), result("a"))
    ]

    assert [True, False] == [entry.made.endswith(", on gpu-1") for entry in entries]


@pytest.mark.parametrize(("side", "expected"), [(64, "picture"), (1200, "made"), (5000, "preview")])
def test_thumbnails(root: Root, side: int, expected: str) -> None:
    """A small picture is its own thumbnail; of a larger one a small copy is made; the largest is
    shown as the model saw it."""
    Image.effect_noise((min(side, 1200),) * 2, 64).save(root.outputs / "noise.png")
    record = result("noise", 7)
    facts = msgspec.structs.replace(record.image, width=side, height=side)

    with closing(root.open_outputs()) as folders:
        of_side = msgspec.structs.replace(record, image=facts)
        found = thumbnail_of(of_side, "noise.png", folders)
    made = list((root.outputs / GALLERY / "thumbnails").rglob("*.webp"))

    assert expected == found
    assert (expected == "made") == bool(made)
    for path in made:
        with Image.open(path) as image:
            assert (512, 512) == image.size


def test_formats_that_browsers_do_not_show(root: Root) -> None:
    """Of a TIFF, however small, a copy is made that browsers show; its card links the file itself."""
    Image.effect_noise((64, 64), 64).save(root.outputs / "noise.tif")
    record = result("noise", 7)
    facts = msgspec.structs.replace(
        record.image, file="generated_images/noise.tif", format="TIFF", width=64, height=64
    )
    of_tiff = msgspec.structs.replace(record, image=facts)

    with closing(root.open_outputs()) as folders:
        found = thumbnail_of(of_tiff, "noise.tif", folders)
    entry = entry_of(of_tiff, "noise.json", found)

    assert ("made", ".tif", True) == (found, entry.suffix, entry.opaque)
    assert 1 == len(list((root.outputs / GALLERY / "thumbnails").rglob("*.webp")))


def test_deleted_thumbnails_go(root: Root, tmp_path: Path) -> None:
    """With a deleted result, a rebuild removes the small copy of its picture too."""
    file = tmp_path / "noise.png"
    Image.effect_noise((1200, 1200), 64).save(file)
    for number, name in enumerate(["kept", "deleted"]):
        record = result(name, number)
        image = msgspec.structs.replace(record.image, width=1200, height=1200)
        place(root, msgspec.structs.replace(record, image=image), name, file)
    Gallery(root).rebuild()
    (root.outputs / "deleted.json").unlink()
    Gallery(root).rebuild()

    left = [path.stem for path in (root.outputs / GALLERY).rglob("*.webp")]

    assert [job_id(0)] == left


def test_daemon_killed(root: Root, samples: Path) -> None:
    """A daemon keeps the gallery; killed in the middle and started again, it shows every job once."""
    names = sorted(path.name for path in samples.glob("*.png"))
    with serving(root, engine="onnxruntime") as daemon:
        for name in names[:6]:
            (root.inbox / name).write_bytes((samples / name).read_bytes())
        daemon.wait_for_ends(3)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
    with serving(root, engine="onnxruntime") as daemon:
        (root.inbox / "broken.jpg").write_bytes(b"no picture")
        for name in names[6:]:
            (root.inbox / name).write_bytes((samples / name).read_bytes())
        daemon.wait_for_ends(len(names) + 1)
        assert 0 == daemon.stop()

    with closing(Store(root.database, read_only=True)) as store:
        ended = store.ended()

    assert len(names) + 1 == len(ended)
    assert sorted(job for job, _ in ended) == sorted(entry.id for entry in shown(root))
    assert ["failed/broken.jpg"] == [e.name for e in shown(root) if e.state == "failed"]


def test_daemon_without(root: Root, samples: Path) -> None:
    """With gallery = false nothing of it is made; with a broken one jobs are done as ever, and the
    daemon says what is wrong."""
    picture = (samples / "round_ring_01.png").read_bytes()
    (root.inbox / "one.png").write_bytes(picture)
    ran = fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime", gallery=False)
    files = {path.name for path in root.outputs.iterdir()}

    assert 0 == ran.returncode
    assert {"one.png", "one.json", "failed"} == files

    page_of(root).write_text("<h1>Our group</h1>")
    with serving(root, engine="onnxruntime") as daemon:
        (root.inbox / "two.png").write_bytes(picture)
        daemon.wait_for_ends(2)
        daemon.wait_until(lambda: "not the gallery's" in root.heartbeat.read_text(), "the reason")
        assert 0 == daemon.stop()


def test_paths_of_records(root: Root, picture: Path) -> None:
    """A result in a subfolder, with dots in its name, is found again with its picture."""
    place(root, result("a.b/c.d", 1), "a.b/c.d", picture)
    place(root, failure("a.b/c.txt", 2), "a.b/c.txt", picture)

    Gallery(root).rebuild()

    assert ["a.b/c.d", "failed/a.b/c.txt"] == [entry.name for entry in shown(root)]
    assert "outputs/failed/x.txt.error.json" == path_of(failure("x.txt"), "x.txt")


class Texts(HTMLParser):
    """What a page says in each element, and the policy that it begins with."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.policy = ""
        self._tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        self._tag = tag
        said = dict(attrs)
        if said.get("http-equiv") == "Content-Security-Policy":
            self.policy = said["content"] or ""

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        self.texts[self._tag] = self.texts.get(self._tag, "") + data

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        self._tag = ""


@pytest.mark.parametrize(
    "title",
    ["shop", "</title><script>alert(1)</script>", "\"'&amp;", "$title ${script} $$ {{ x }}", "图"],
)
def test_title_is_text(title: str) -> None:
    """Whatever a root is called, its page shows just that, and has no script or style but those whose
    digests its policy names.
    """
    page = Texts(render(title).decode())
    digests = {
        kind: b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        for kind in ("script", "style")
    }

    assert (f"{title} · fluxdrop", title) == (page.texts["title"], page.texts["h1"])
    assert digests == dict(re.findall(r"(script|style)-src 'sha256-([^']+)'", page.policy))
