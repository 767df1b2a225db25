"""Open a picture that nobody vouches for: bounded before it is decoded, brought to 8-bit L, LA, RGB or RGBA."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fluxdrop.errors import FluxdropError

FORMATS = ("PNG", "JPEG", "WEBP")

# The bound is max_pixels, checked below on the header alone; Pillow's own would only warn, and at another size.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False

_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def open_picture(path: Path, *, max_file_bytes: int, max_pixels: int) -> tuple[Image.Image, str]:
    """Decode the picture *path* upright; return it and its format's name (``PNG``, ``JPEG`` or ``WEBP``).

    The picture has 8 bits a channel and mode L, LA, RGB or RGBA. Raises FluxdropError, kind ``picture``, for a file
    that is no picture, is damaged, or is over a bound.
    """
    try:
        with _open_file(path, max_file_bytes) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                _check_pixels(path, image, max_pixels)
                name = image.format or ""
                image.load()
                return _eight_bit(ImageOps.exif_transpose(image)), name
    except UnidentifiedImageError:
        raise FluxdropError(
            f"{path.name} is not a picture: its contents are no PNG, JPEG or WebP.",
            hint="Save it again as PNG and drop it once more.",
            kind="picture",
        ) from None
    except FluxdropError:
        raise
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
        # Pillow's plugins let any of these through for files that are damaged in an odd enough way.
        raise _damaged(path, str(error)) from error


def _open_file(path: Path, max_file_bytes: int) -> IO[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise FluxdropError(f"{path.name} is not a regular file.", kind="picture")
    if status.st_size > max_file_bytes:
        os.close(fd)
        raise FluxdropError(
            f"{path.name} has {status.st_size:,} bytes, over the limit of {max_file_bytes:,}.",
            hint="Make it smaller, or raise max_file_bytes in fluxdrop.toml.",
            kind="picture",
        )
    return os.fdopen(fd, "rb")


def _check_pixels(path: Path, image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise FluxdropError(
            f"{path.name} has {image.width} x {image.height} pixels, over the limit of {max_pixels:,}.",
            hint="Make it smaller, or raise max_pixels in fluxdrop.toml.",
            kind="picture",
        )


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode in _16_BIT or image.mode == "I":
        # Pillow's own conversion clips to 255 where the high byte is meant.
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray((np.minimum(values, 65535) >> 8).astype(np.uint8))
    if image.mode in ("1", "F"):
        return image.convert("L")
    transparent = "transparency" in image.info or image.mode in ("PA", "La", "RGBa")
    return image.convert("RGBA" if transparent else "RGB")


def _damaged(path: Path, reason: str) -> FluxdropError:
    return FluxdropError(
        f"{path.name} is damaged or cut off: {reason.rstrip('.')}.",
        hint="Save or copy it again, whole, and drop it once more.",
        kind="picture",
    )
