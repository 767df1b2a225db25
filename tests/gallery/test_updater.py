"""The thread that updates a gallery, in a real root: what it puts off, and for how long."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image, ImageChops

from fluxdrop.files.layout import GALLERY, Root
from fluxdrop.gallery import updater
from fluxdrop.gallery.data_pages import GalleryDamaged, Pages
from fluxdrop.gallery.thumbnail import thumbnail_of
from fluxdrop.gallery.updater import GalleryUpdater
from fluxdrop.jobs.store import Store
from fluxdrop.records.result import Record
from support.gallery_records import place, result


def shown(root: Root) -> list[str]:
    """The names of what the gallery shows, none before its first update."""
    with closing(root.open_outputs()) as folders:
        pages = Pages(folders)
        try:
            summary = pages.summary()
        except GalleryDamaged:
            return []
        return [] if summary is None else [entry.name for entry in pages.entries(summary)]


def told(root: Root, samples: Path, name: str, number: int, side: int) -> tuple[Record, str]:
    """A job that ended, whose picture has *side* x *side* pixels by its record."""
    record = result(name, number)
    facts = msgspec.structs.replace(record.image, width=side, height=side)
    return place(
        root,
        msgspec.structs.replace(record, image=facts),
        name,
        samples / "round_circle_01.png",
    )


@pytest.mark.slow
def test_put_off_while_busy(root: Root, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While pictures are decoded, one that needs a smaller copy is shown only when there are none any more; with
    none that needs it, all are shown at once."""
    monkeypatch.setattr(updater, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(updater, "_MAX_PUT_OFF_SECONDS", 1e9)
    with closing(Store(root.database)):
        pass
    gallery = GalleryUpdater(root)
    gallery.is_busy = True
    gallery.start()
    try:
        gallery.add(*told(root, samples, "small", 1, 64))
        while shown(root) != ["small"]:
            time.sleep(0.01)
        gallery.add(*told(root, samples, "large", 2, 600))
        time.sleep(0.3)
        assert ["small"] == shown(root)
        gallery.is_busy = False
        while shown(root) != ["small", "large"]:
            time.sleep(0.01)
    finally:
        gallery.close()


def test_many_wait(root: Root, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between two updates ends when so many jobs wait that more would soon not fit."""
    monkeypatch.setattr(updater, "_PAUSE_SECONDS", 3600)
    monkeypatch.setattr(updater, "_MANY_WAITING", 3)
    monkeypatch.setattr(updater, "_MAX_TOGETHER", 2)
    with closing(Store(root.database)):
        pass
    gallery = GalleryUpdater(root)
    gallery.start()
    try:
        for names in (["a", "b", "c"], ["d", "e", "f"]):
            for name in names:
                gallery.add(*told(root, samples, name, ord(name), 64))
            while shown(root)[-3:] != names:
                time.sleep(0.01)
    finally:
        gallery.close()
    assert [*"abcdef"] == shown(root)


def test_copy_of_a_photo(root: Root) -> None:
    """The smaller copy of a JPEG, which is decoded at a lower resolution for it, shows what the photo shows."""
    photo = Image.radial_gradient("L").resize((2400, 1800)).convert("RGB")
    photo.save(root.outputs / "photo.jpg", quality=90)
    record = result("photo", 7)
    facts = msgspec.structs.replace(record.image, width=2400, height=1800, format="JPEG")

    with closing(root.open_outputs()) as folders:
        found = thumbnail_of(msgspec.structs.replace(record, image=facts), "photo.jpg", folders)

    assert "made" == found
    (made,) = (root.outputs / GALLERY / "thumbnails").rglob("*.webp")
    with Image.open(made) as image:
        assert (512, 384) == image.size
        difference = ImageChops.difference(
            image.convert("L"), photo.resize(image.size).convert("L")
        )
        assert int(np.asarray(difference).max()) <= 8
