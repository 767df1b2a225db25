"""Decode untrusted picture files: check the bounds first, apply the orientation, convert to 8 bits."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_regular
from fluxdrop.picture_formats import FORMAT_TITLES, FORMATS
from fluxdrop.preprocess import jpeg

# Pillow loads the plugins of these formats only; any other could be one that was never bounded.
_FORMATS = tuple(one.name for one in FORMATS if one.name != "HEIF")

# The limit is max_pixels, which `_decode` checks with the header alone. Pillow's own limit would only
# warn, and at another size.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False


def open_picture(
    path: Path | str,
    *,
    max_file_bytes: int,
    max_pixels: int,
    name: str = "",
    folder: int | None = None,
    notes: list[str] | None = None,
) -> tuple[Image.Image, str]:
    """Decode a picture file, with its EXIF orientation applied.

    Args:
        path: The file; relative to *folder* if one is given.
        max_file_bytes: The largest file that is read.
        max_pixels: The largest picture that is decoded.
        name: What errors call the file; the last part of *path* if empty.
        folder: The descriptor of an open folder.
        notes: Gets a sentence for each thing that was wrong with the file and does not matter.

    Returns:
        The picture, with 8 bits per channel and mode L, LA, RGB or RGBA; and its format, a name in
        `FORMATS`.

    Raises:
        FluxdropError: Kind ``picture``, when the file is not a picture, is damaged, or exceeds a
            limit.
    """
    name = name or Path(path).name
    with open_regular(path, "picture", name, folder) as file:
        _check_size(name, file, max_file_bytes)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _decode(name, file, max_pixels, [] if notes is None else notes)
        except (FluxdropError, MemoryError):
            # Running out of memory is not the file's fault.
            raise
        except UnidentifiedImageError:
            raise FluxdropError(
                f"{name} is not a picture: its contents are not {FORMAT_TITLES}",
                hint="Save it again as PNG and drop it once more.",
                kind="picture",
            ) from None
        except Exception as error:
            # Pillow's decoders may raise any exception for a damaged file. An OSError with a number
            # comes from the filesystem, except EINVAL: a decoder's seek to a wrong offset.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            reason = str(error).strip().rstrip(".") or type(error).__name__
            if "MAX_TEXT" in reason:
                raise FluxdropError(
                    f"{name} unpacks to more text or a larger colour profile than is safe",
                    hint="Save it without its metadata and drop it once more.",
                    kind="picture",
                ) from None
            raise FluxdropError(
                f"{name} is damaged or cut off: {reason}",
                hint="Save or copy it again, whole, and drop it once more.",
                kind="picture",
            ) from error


def _decode(
    name: str, file: IO[bytes], max_pixels: int, notes: list[str]
) -> tuple[Image.Image, str]:
    """Decode *file* if its header is within the limits; return the picture and its format."""
    with Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise FluxdropError(
                f"{name} has {image.width} x {image.height} pixels,"
                f" over the limit of {max_pixels:,}",
                hint="Make it smaller, or raise max_pixels in fluxdrop.toml.",
                kind="picture",
            )
        # A camera's JPEG may contain several pictures; Pillow calls that format MPO.
        file_format = "JPEG" if image.format == "MPO" else str(image.format)
        if file_format == "JPEG":
            outline = jpeg.outline_of(file)
            if outline.has_too_many_scans:
                raise FluxdropError(
                    f"{name} is a JPEG with more than {jpeg.MAX_SCANS} scans",
                    hint="Save it again, as PNG or as an ordinary JPEG, and drop it once more.",
                    kind="picture",
                )
            if outline.lacks_end_only:
                whole = jpeg.decode_without_end(file, outline)
                notes.append("The JPEG lacks the mark of its end; all of its pixels are there.")
                return _to_eight_bit(ImageOps.exif_transpose(whole)), file_format
        image.load()
        return _to_eight_bit(ImageOps.exif_transpose(image)), file_format


def _check_size(name: str, file: IO[bytes], max_file_bytes: int) -> None:
    """Refuse a file that is too large."""
    size = os.fstat(file.fileno()).st_size
    if size > max_file_bytes:
        raise FluxdropError(
            f"{name} has {size:,} bytes, over the limit of {max_file_bytes:,}",
            hint="Make it smaller, or raise max_file_bytes in fluxdrop.toml.",
            kind="picture",
        )


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """Convert *image* to mode L, LA, RGB or RGBA."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips to 255 instead of taking the high byte.
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray((np.minimum(values, 65535) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    converted = image.convert("L" if image.mode == "1" else "RGB")
    # A CMYK profile does not describe the converted colours.
    converted.info.pop("icc_profile", None)
    return converted
