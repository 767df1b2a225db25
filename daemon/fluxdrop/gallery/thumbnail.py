"""Thumbnails for the gallery, made only of pictures that are too large to be their own.

Most pictures are their own thumbnail, at no cost. A smaller copy is made of a picture that a
browser would load slowly or cannot show. A picture that is too large to be decoded a second time is shown as the
model saw it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO

from PIL import Image

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.folders import Folders, has_name
from fluxdrop.files.layout import GALLERY
from fluxdrop.gallery.entry import Thumbnail, is_opaque
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import shown
from fluxdrop.records.result import Record, Result

_SMALL_BYTES = 160 * 1024
_SMALL_PIXELS = 1024 * 1024
_MAX_BYTES = 64 * 1024**2
_MAX_PIXELS = 16_000_000
_SIDE_PIXELS = 512
_FOLDER = f"{GALLERY}/thumbnails"
_SUFFIX = ".webp"


def may_be_copied(record: Record) -> bool:
    """Return whether a smaller copy of the picture of *record* may be needed; its file's size decides that."""
    if not isinstance(record, Result):
        return False
    return record.image.width * record.image.height > _SIDE_PIXELS**2 or is_opaque(record)


def thumbnail_of(record: Result, picture: str, folders: Folders) -> Thumbnail:
    """Return what a job's card shows, after making a smaller copy of the picture if it is needed.

    Args:
        record: The job's record.
        picture: The picture's path below outputs/.
        folders: The folders below outputs/.

    Raises:
        OSError: The copy cannot be written.
    """
    pixels = record.image.width * record.image.height
    parent, _, name = picture.rpartition("/")
    try:
        size = os.stat(name, dir_fd=folders.fd(parent), follow_symlinks=False).st_size
    except (FileNotFoundError, NotADirectoryError):
        return "picture"
    if size <= _SMALL_BYTES and pixels <= _SMALL_PIXELS and not is_opaque(record):
        return "picture"
    if size > _MAX_BYTES or pixels > _MAX_PIXELS:
        return "preview"
    # A folder for each day keeps the folders small, and an id stays the same in a rebuilt gallery.
    day = f"{_FOLDER}/{record.job_id[:8]}"
    made = f"{record.job_id}{_SUFFIX}"
    if has_name(made, folders.fd(day, make=True)):
        return "made"
    try:
        image, _ = open_picture(
            name,
            max_file_bytes=_MAX_BYTES,
            max_pixels=_MAX_PIXELS,
            folder=folders.fd(parent),
            deep=True,
            shrink=lambda size: min(size) / _SIDE_PIXELS,
        )
    except (FluxdropError, NotADirectoryError, FileNotFoundError):
        return "preview"
    durable.write_in(folders.fd(day, make=True), made, _webp(shown(image)), sync=False)
    return "made"


def prune_thumbnails(folders: Folders, job_ids: set[str]) -> None:
    """Remove the smaller copies that belong to none of the jobs *job_ids*."""
    for day in _days(folders):
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            fd = folders.fd(day)
            for name in os.listdir(fd):  # noqa: PTH208 - a descriptor
                if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) not in job_ids:
                    os.unlink(name, dir_fd=fd)


def sweep_thumbnails(folders: Folders) -> None:
    """Remove the files that a killed process left half written."""
    for day in _days(folders):
        with suppress(FileNotFoundError, NotADirectoryError):
            durable.sweep(folders.fd(day))


def _days(folders: Folders) -> list[str]:
    try:
        names = os.listdir(folders.fd(_FOLDER))  # noqa: PTH208 - a descriptor
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{_FOLDER}/{name}" for name in names]


def _webp(image: Image.Image) -> bytes:
    image.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = BytesIO()
    profile = image.info.get("icc_profile")
    image.save(buffer, "WEBP", quality=80, method=2, icc_profile=profile)
    return buffer.getvalue()
