"""Decode untrusted picture files: check the bounds first, apply orientation and colour profile."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Literal, overload

import numpy as np
from PIL import Image, ImageFile

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_regular
from fluxdrop.picture_formats import FORMAT_TITLES, HEAD_BYTES, format_of
from fluxdrop.preprocess import jpeg, png
from fluxdrop.preprocess.colour import to_srgb
from fluxdrop.preprocess.decoded import (
    ANIMATION,
    Bounds,
    Decoded,
    by_pillow,
    orientation_of,
    profile_of,
)
from fluxdrop.preprocess.deep import Deep, RangeError
from fluxdrop.preprocess.reduced import SCALES, Reduced, reduced

# The limit is max_pixels, which is checked with the header alone. Pillow's own limit would only warn, and at
# another size.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False


@overload
def open_picture(
    path: Path | str,
    *,
    max_file_bytes: int,
    max_pixels: int,
    name: str = "",
    folder: int | None = None,
    deep: Literal[False] = False,
    notes: list[str] | None = None,
    reserve: Callable[[int], None] = lambda _pixels: None,
) -> tuple[Image.Image, str]: ...


@overload
def open_picture(
    path: Path | str,
    *,
    max_file_bytes: int,
    max_pixels: int,
    name: str = "",
    folder: int | None = None,
    deep: Literal[True],
    notes: list[str] | None = None,
    reserve: Callable[[int], None] = lambda _pixels: None,
    shrink: Callable[[tuple[int, int]], float] = lambda _size: 1,
) -> tuple[Image.Image | Deep | Reduced, str]: ...


def open_picture(
    path: Path | str,
    *,
    max_file_bytes: int,
    max_pixels: int,
    name: str = "",
    folder: int | None = None,
    deep: bool = False,
    notes: list[str] | None = None,
    reserve: Callable[[int], None] = lambda _pixels: None,
    shrink: Callable[[tuple[int, int]], float] = lambda _size: 1,
) -> tuple[Image.Image | Deep | Reduced, str]:
    """Decode a picture file, upright and in sRGB.

    Args:
        path: The file; relative to *folder* if one is given.
        max_file_bytes: The largest file that is read.
        max_pixels: The largest picture that is decoded.
        name: What errors call the file; the last part of *path* if empty.
        folder: The descriptor of an open folder.
        deep: Whether a picture with more than 8 bits a channel is returned with all of them.
        notes: Gets a sentence for each thing that was assumed, or that was wrong with the file and does not matter.
        reserve: Called with the number of pixels before memory is taken for them, perhaps more than once.
        shrink: Called with the size of a JPEG, upright; returns how many times smaller it may be decoded, in half the
            time. It is decoded at 1/2, 1/4 or 1/8 then, if that is allowed.

    Returns:
        The picture, with 8 bits per channel and mode L, LA, RGB or RGBA, or a `Deep` or `Reduced` one; and its format,
        a name in `fluxdrop.picture_formats`, which its contents decide.

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
                told = [] if notes is None else notes
                image, file_format = _decode(
                    file, Bounds(name, max_pixels, told.append, reserve, shrink)
                )
                if isinstance(image, Deep) and not deep:
                    return image.high_bytes(), file_format
                return image, file_format
        except (FluxdropError, MemoryError):
            # Running out of memory is not the file's fault.
            raise
        except RangeError as error:
            raise FluxdropError(
                f"{name} cannot be read as a picture: {error}", hint=error.hint, kind="picture"
            ) from error
        except Exception as error:
            # Decoders may raise any exception for a damaged file. An OSError with a number
            # comes from the filesystem, except EINVAL: a decoder's seek to a wrong offset.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise FluxdropError(
                f"{name} is damaged or cut off: {reason}",
                hint="Save or copy it again, whole, and drop it once more.",
                kind="picture",
            ) from error


def _decode(file: IO[bytes], bounds: Bounds) -> tuple[Image.Image | Deep | Reduced, str]:
    """Decode *file* if its header is within the limits; return the picture and its format."""
    found = format_of(file.read(HEAD_BYTES))
    file.seek(0)
    if found is None:
        raise FluxdropError(
            f"{bounds.name} is not a picture: its contents are not {FORMAT_TITLES}",
            hint="Save it again as PNG and drop it once more.",
            kind="picture",
        )
    decoded = _DECODERS[found.name](file, bounds)
    image = decoded.image
    if isinstance(image, Deep):
        image = image.turned(decoded.orientation)
    else:
        turn = _TURNS.get(decoded.orientation)
        image = image if turn is None else image.transpose(turn)
        if image.mode not in ("CMYK", "LAB"):
            image = _to_eight_bit(image)
    image = to_srgb(image, decoded.profile, bounds.warn)
    if isinstance(image, Deep):
        return image, found.name
    image = _to_eight_bit(image)
    if decoded.scale > 1:
        return reduced(image, decoded.size, decoded.scale, decoded.orientation), found.name
    return image, found.name


def _jpeg(file: IO[bytes], bounds: Bounds) -> Decoded:
    # A camera's JPEG may contain several pictures; Pillow calls that format MPO.
    with Image.open(file, formats=["JPEG"]) as image:
        bounds.check(*image.size)
        outline = jpeg.outline_of(file)
        if outline.has_too_many_scans:
            raise FluxdropError(
                f"{bounds.name} is a JPEG with more than {jpeg.MAX_SCANS} scans",
                hint="Save it again, as PNG or as an ordinary JPEG, and drop it once more.",
                kind="picture",
            )
        if outline.lacks_end_only:
            whole = jpeg.decode_without_end(file, outline)
            bounds.warn("The JPEG lacks the mark of its end; all of its pixels are there.")
            return Decoded(whole, profile_of(whole), orientation_of(whole, bounds))
        orientation = orientation_of(image, bounds)
        size = (image.height, image.width) if orientation in _ON_A_SIDE else image.size
        scale = _shrink(image, bounds.shrink(size))
        if scale > 1:
            bounds.warn(f"It was decoded at 1/{scale} of its size (fast_jpeg).")
        image.load()
        return Decoded(image, profile_of(image), orientation, scale, size)


def _shrink(image: Image.Image, most: float) -> int:
    """Have the JPEG *image* decoded up to *most* times smaller; return how many times smaller it will be."""
    scale = next((scale for scale in SCALES if scale <= most), 1)
    if scale == 1:
        return 1
    width, height = image.size
    # Pillow takes the largest scale that leaves this size. The mode stays: libjpeg's grey is not that of a colour
    # picture which Pillow converts.
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    return 1 if drafted is None else round(width / drafted[1][2])


def _webp(file: IO[bytes], bounds: Bounds) -> Decoded:
    from PIL import WebPImagePlugin

    with WebPImagePlugin.WebPImageFile(file) as image:
        if image.is_animated:
            bounds.warn(ANIMATION)
        return by_pillow(image, bounds)


def _bmp(file: IO[bytes], bounds: Bounds) -> Decoded:
    from PIL import BmpImagePlugin

    with BmpImagePlugin.BmpImageFile(file) as image:
        if image.info.get("compression") in (1, 2) and image.width * image.height > _MAX_RUN_PIXELS:
            raise bounds.refusal(f"is a compressed BMP with more than {_MAX_RUN_PIXELS:,} pixels")
        return by_pillow(image, bounds)


def _avif(file: IO[bytes], bounds: Bounds) -> Decoded:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with AvifImagePlugin.AvifImageFile(file) as image:
        if image.is_animated:
            bounds.warn(ANIMATION)
        return by_pillow(image, bounds)


def _module(name: str) -> Callable[[IO[bytes], Bounds], Decoded]:
    """Return the decoder in the module *name*, which is imported when it is needed."""

    def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
        decoded: Decoded = import_module(f"fluxdrop.preprocess.{name}").decode(file, bounds)
        return decoded

    return decode


# Each opens one format with one plugin. `Image.open` would load all plugins, also those of formats whose cost nobody
# has bounded.
_DECODERS: dict[str, Callable[[IO[bytes], Bounds], Decoded]] = {
    "PNG": png.decode,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "TIFF": _module("tiff"),
    "BMP": _bmp,
    "GIF": _module("gif"),
    "AVIF": _avif,
    "JPEG2000": _module("jpeg2000"),
    "HEIF": _module("heif"),
    "PPM": _module("pnm"),
}

# Pillow unpacks its runs in Python.
_MAX_RUN_PIXELS = 1 << 24

_ON_A_SIDE = (5, 6, 7, 8)
# https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf, 4.6.4 A, Orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    if image.mode in ("PA", "La", "RGBa"):
        return image.convert("RGBA")
    converted = image.convert("L" if image.mode == "1" else "RGB")
    # A CMYK profile does not describe the converted colours.
    converted.info.pop("icc_profile", None)
    return converted
