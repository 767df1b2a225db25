"""Small pictures for the grid, made only where the picture itself is too large to be one.

Most pictures are their own thumbnail, at no cost; a smaller copy is made of what a browser would
load slowly, and what is too large to be decoded a second time is shown as the model saw it.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from fluxdrop import durable
from fluxdrop.errors import FluxdropError
from fluxdrop.gallery.entry import Thumbnail
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.publish.result import Result

_LIGHT_BYTES = 160 * 1024
_LIGHT_PIXELS = 1024 * 1024
_MOST_BYTES = 64 * 1024**2
_MOST_PIXELS = 16_000_000
_SIDE = 512


def thumbnail_of(record: Result, picture: Path, folder: Path) -> Thumbnail:
    """What is to stand for *picture*; a smaller copy is made in *folder* if it has to be.

    Raises OSError when the disk is in the way.
    """
    pixels = record.image.width * record.image.height
    try:
        size = picture.stat().st_size
    except FileNotFoundError:
        return "picture"
    if size <= _LIGHT_BYTES and pixels <= _LIGHT_PIXELS:
        return "picture"
    if size > _MOST_BYTES or pixels > _MOST_PIXELS:
        return "preview"
    # The day keeps the folders small; the id stays the same when the gallery is made again.
    target = folder / record.job_id[:8] / f"{record.job_id}.webp"
    if target.exists():
        return "made"
    try:
        image, _ = open_picture(picture, max_file_bytes=_MOST_BYTES, max_pixels=_MOST_PIXELS)
    except FluxdropError:
        return "preview"
    target.parent.mkdir(parents=True, exist_ok=True)
    durable.write(target, _webp(image), sync=False)
    return "made"


def keep_thumbnails(folder: Path, job_ids: set[str]) -> None:
    """Remove the smaller copies in *folder* that are of none of *job_ids*."""
    for path in folder.glob("*/*.webp"):
        if path.stem not in job_ids:
            path.unlink()


def _webp(image: Image.Image) -> bytes:
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = BytesIO()
    profile = image.info.get("icc_profile")
    image.save(buffer, "WEBP", quality=80, method=2, icc_profile=profile)
    return buffer.getvalue()
