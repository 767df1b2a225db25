"""Opening a picture that nobody vouches for: bounded before it is decoded, upright, in 8 bits."""

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
from fluxdrop.preprocess import jpeg

FORMATS = ("PNG", "JPEG", "WEBP")

# The bound is max_pixels, checked below on the header alone; Pillow's own would only warn, and at
# another size.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False

# Each goes over all pixels for as few bytes as the file likes; programs write about ten.
_MOST_SCANS = 100


def open_picture(
    path: Path | str,
    *,
    max_file_bytes: int,
    max_pixels: int,
    name: str = "",
    folder: int | None = None,
) -> tuple[Image.Image, str]:
    """Decode the picture *path*, relative to the open *folder* if one is given, upright; return it
    and its format: ``PNG``, ``JPEG`` or ``WEBP``.
    Errors call it *name*.

    The picture has 8 bits a channel and mode L, LA, RGB or RGBA. Raises FluxdropError, kind
    ``picture``, for a file that is no picture, is damaged, or is over a bound.
    """
    name = name or Path(path).name
    with open_regular(path, "picture", name, folder) as file:
        _check_bytes(name, file, max_file_bytes)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _decode(name, file, max_pixels)
        except (FluxdropError, MemoryError):
            # Too little memory says nothing of the file.
            raise
        except UnidentifiedImageError:
            raise FluxdropError(
                f"{name} is not a picture: its contents are no PNG, JPEG or WebP",
                hint="Save it again as PNG and drop it once more.",
                kind="picture",
            ) from None
        except Exception as error:
            # Pillow's decoders let anything through for files that are damaged in an odd enough
            # way. An OSError with a number is the filesystem's, but for a seek that they got wrong.
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


def _decode(name: str, file: IO[bytes], max_pixels: int) -> tuple[Image.Image, str]:
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise FluxdropError(
                f"{name} has {image.width} x {image.height} pixels,"
                f" over the limit of {max_pixels:,}",
                hint="Make it smaller, or raise max_pixels in fluxdrop.toml.",
                kind="picture",
            )
        # A camera's JPEG may hold more pictures than one, which Pillow calls MPO.
        file_format = "JPEG" if image.format == "MPO" else str(image.format)
        if file_format == "JPEG" and jpeg.count_scans(file, _MOST_SCANS) > _MOST_SCANS:
            raise FluxdropError(
                f"{name} goes over its pixels more than {_MOST_SCANS} times",
                hint="Save it again, as PNG or as an ordinary JPEG, and drop it once more.",
                kind="picture",
            )
        image.load()
        return _eight_bit(ImageOps.exif_transpose(image)), file_format


def _check_bytes(name: str, file: IO[bytes], max_file_bytes: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if size > max_file_bytes:
        raise FluxdropError(
            f"{name} has {size:,} bytes, over the limit of {max_file_bytes:,}",
            hint="Make it smaller, or raise max_file_bytes in fluxdrop.toml.",
            kind="picture",
        )


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips to 255 where the high byte is meant.
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray((np.minimum(values, 65535) >> 8).astype(np.uint8))
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    converted = image.convert("L" if image.mode == "1" else "RGB")
    # A profile of CMYK says nothing about the colours it was converted to.
    converted.info.pop("icc_profile", None)
    return converted
