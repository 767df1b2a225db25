"""Decode the first page of a TIFF that is no thumbnail.

What has bytes for samples (8, 16, 32 or 64 bits, integers or floats) is unpacked by libtiff as a grey picture of
bytes, and numpy makes samples of these: Pillow has no mode for most of them, and gives some only 8 bits. The rest (1 to
4 bits, palettes, JPEG, fax) is decoded by Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from fluxdrop.preprocess import tiff_page as tag
from fluxdrop.preprocess.decoded import MAX_PROFILE_BYTES, Bounds, Decoded, by_pillow
from fluxdrop.preprocess.deep import Deep, of_floats, of_integers
from fluxdrop.preprocess.tiff_page import Page, part_places, read_page, rewritten

_NONE, _OLD_JPEG, _JPEG = 1, 6, 7
_COMPRESSIONS = {
    **{_NONE: "none", 2: "CCITT", 3: "fax", 4: "fax", 5: "LZW", _OLD_JPEG: "JPEG", _JPEG: "JPEG"},
    **{8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA", 50000: "Zstandard"},
}
_OF_BYTES = {_NONE, 5, 8, 32773, 32946, 34925, 50000}
"""The compressions that do not know what the bytes mean."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED, _YCBCR = 0, 1, 2, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _SEPARATED: 4}
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_MAX_CHANNELS = 64
_MAX_PART_BYTES = 1 << 27
"""The largest tile is larger than the picture by less than this."""
_PREMULTIPLIED, _ALPHA = 1, 2


def decode(file: IO[bytes], bounds: Bounds) -> Decoded:
    """Decode a TIFF; of several pages, which are a warning, the first that is no thumbnail.

    Raises:
        FluxdropError: It is over the *bounds*, or of a kind that is not read.
        ValueError: It is damaged. Besides, what Pillow raises.
    """
    page = read_page(file)
    bounds.check(*page.size)
    if page.position > 1:
        bounds.warn(
            f"It has several pages, of which the first is a thumbnail: page {page.position} was taken."
        )
    elif page.has_more:
        bounds.warn("It has several pages: the first one was taken.")
    elif page.is_reduced:
        bounds.warn("It says that it is a thumbnail; it has no other page.")
    compression = page.number(tag.COMPRESSION, _NONE)
    if compression not in _COMPRESSIONS:
        raise bounds.refusal(
            f"is a TIFF with a compression that is not read (number {compression})"
        )
    channels = page.number(tag.CHANNELS, 1)
    if not 1 <= channels <= _MAX_CHANNELS:
        raise bounds.refusal(f"has {channels:,} channels, over the limit of {_MAX_CHANNELS}")
    bits = page.numbers(tag.BITS) or [1]
    bounds.check_samples(*page.size, -(-channels * max(bits) // 8))
    places = part_places(page, file.seek(0, 2))
    across, down = page.part
    width, height = page.size
    if page.is_tiled and across * down * channels * max(bits) // 8 > _MAX_PART_BYTES + (
        width * height * channels * max(bits) // 8
    ):
        raise bounds.refusal(
            f"has tiles of {across:,} x {down:,} pixels, which is more than it needs"
        )
    photometric = page.number(tag.PHOTOMETRIC, _BLACK_IS_ZERO)
    if (
        compression in _OF_BYTES
        and photometric in _COLOURS
        and bits[0] in (8, 16, 32, 64)
        and len(set(bits)) == 1
    ):
        image = _of_samples(file, page, places, photometric, bounds)
    else:
        if photometric == _YCBCR and compression in _OF_BYTES:
            raise bounds.refusal("is a TIFF with YCbCr colours that are not compressed as JPEG")
        image = by_pillow(_opened(rewritten(file, page, places, {})), bounds).image
        image = _of_pillow(image, page)
    profile = page.tags.get(tag.PROFILE)
    if profile is not None and len(profile) > MAX_PROFILE_BYTES:
        bounds.warn("Its colour profile is too large, and was not used.")
        profile = None
    return Decoded(
        image, b"" if profile is None else profile.tobytes(), page.number(tag.ORIENTATION, 1)
    )


def _opened(file: IO[bytes]) -> Image.Image:
    return TiffImagePlugin.TiffImageFile(file)


def _of_pillow(image: Image.Image | Deep, page: Page) -> Image.Image | Deep:
    """Return what Pillow decoded; 12 bits keep their depth."""
    assert isinstance(image, Image.Image)
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)[..., np.newaxis]
        return Deep(pixels, 2.0 ** page.number(tag.BITS, 16) - 1)
    return image


def _of_samples(
    file: IO[bytes],
    page: Page,
    places: Sequence[tuple[int, int]],
    photometric: int,
    bounds: Bounds,
) -> Image.Image | Deep:
    """Return the picture of a page that has bytes for samples."""
    formats = set(page.numbers(tag.SAMPLE_FORMAT)) or {1}
    kind = _KINDS.get(formats.pop()) if len(formats) == 1 else None
    bits = page.number(tag.BITS, 1)
    if kind is None or (kind == "f" and bits == 8):
        raise bounds.refusal("is a TIFF with samples that are no numbers of a picture")
    samples = _samples(file, page, places, np.dtype(f"{kind}{bits // 8}"))
    colours = _COLOURS[photometric]
    extra = page.numbers(tag.EXTRA)
    if samples.shape[2] < colours:
        raise bounds.refusal(f"has {samples.shape[2]} channels, fewer than its colours need")
    if not extra and (photometric, samples.shape[2]) == (_RGB, 4):
        # As all readers take it.
        extra = [_ALPHA]
    has_alpha = samples.shape[2] > colours and bool(extra) and extra[0] in (_PREMULTIPLIED, _ALPHA)
    ignored = samples.shape[2] - colours - has_alpha
    if ignored:
        bounds.warn(f"It has {ignored} more channels than its colours need; they were ignored.")
        samples = samples[..., : samples.shape[2] - ignored]
    if photometric == _SEPARATED:
        return _of_inks(samples, bounds)
    if samples.dtype == np.uint8:
        image: Image.Image | Deep = _eight_bit(samples, photometric)
    else:
        white = page.number(tag.MAX_SAMPLE, 0) if samples.dtype.kind == "u" else 0
        largest = int(samples.max()) if samples.dtype.kind == "u" else 0
        # Some programs write the largest value that there is, not one that there may be.
        is_full = white > 255 and white >= largest and (white + 1) & white == 0
        deep = (
            of_floats(samples, bounds.warn)
            if samples.dtype.kind == "f"
            else of_integers(samples, bounds.warn, white if is_full else None)
        )
        image = _inverted(deep) if photometric == _WHITE_IS_ZERO else deep
    return _divided_by_alpha(image) if has_alpha and extra[0] == _PREMULTIPLIED else image


def _eight_bit(samples: NDArray[np.uint8], photometric: int) -> Image.Image:
    if photometric == _WHITE_IS_ZERO:
        samples = samples.copy()
        samples[..., 0] = 255 - samples[..., 0]
    if samples.shape[2] == 1:
        samples = samples[..., 0]
    return Image.fromarray(np.ascontiguousarray(samples))


def _of_inks(samples: NDArray[Any], bounds: Bounds) -> Image.Image:
    """Return a picture of cyan, magenta, yellow and black, which has 8 bits."""
    if samples.shape[2] > 4:
        samples = samples[..., :4]
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.dtype != np.uint8:
        raise bounds.refusal("is a TIFF with CMYK colours of other than 8 or 16 bits")
    return Image.fromarray(np.ascontiguousarray(samples), "CMYK")


def _inverted(deep: Deep) -> Deep:
    pixels = deep.pixels.astype(np.float32)
    pixels[..., 0] = deep.white - pixels[..., 0]
    return Deep(pixels, deep.white)


def _divided_by_alpha(image: Image.Image | Deep) -> Image.Image | Deep:
    """Return *image*, whose colours are multiplied by its alpha, without that."""
    pixels = image.pixels if isinstance(image, Deep) else np.asarray(image)
    white = image.white if isinstance(image, Deep) else 255
    alpha = pixels[..., -1:].astype(np.float32)
    colours = pixels[..., :-1] * (white / np.maximum(alpha, 1e-9))
    whole = np.concatenate([np.clip(colours, 0, white), alpha], axis=2)
    if isinstance(image, Deep):
        return Deep(whole.astype(np.float32), white)
    return Image.fromarray(np.rint(whole).astype(np.uint8))


def _samples(
    file: IO[bytes], page: Page, places: Sequence[tuple[int, int]], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the samples of *page*, (height, width, channels), as they are stored."""
    channels = page.number(tag.CHANNELS, 1)
    if page.number(tag.PLANAR, 1) != 2:
        return _plane(file, page, places, dtype, channels)
    each = len(places) // channels
    planes = [
        _plane(file, page, places[start : start + each], dtype, 1)
        for start in range(0, each * channels, each)
    ]
    return np.concatenate(planes, axis=2)


def _plane(
    file: IO[bytes],
    page: Page,
    places: Sequence[tuple[int, int]],
    dtype: np.dtype[Any],
    channels: int,
) -> NDArray[Any]:
    """Return the samples of one plane, which has *channels* channels."""
    width, height = page.size
    across, _ = page.part
    pixel_bytes = channels * dtype.itemsize
    # libtiff would cut off the part of a tile that is outside of the picture, and with it a part of some numbers.
    padded = -(-width // across) * across
    changes = {
        **{tag.WIDTH: [padded * pixel_bytes], tag.BITS: [8], tag.CHANNELS: [1], tag.PLANAR: [1]},
        **{tag.PHOTOMETRIC: [_BLACK_IS_ZERO], tag.PREDICTOR: (), tag.EXTRA: (), tag.FILL_ORDER: ()},
        **{tag.SAMPLE_FORMAT: (), tag.INKS: (), tag.COLOURS: (), tag.BLACK_WHITE: ()},
    }
    if page.is_tiled:
        changes[tag.TILE_WIDTH] = [across * pixel_bytes]
    else:
        changes[tag.STRIP_ROWS] = [page.part[1]]
    image = _opened(rewritten(file, page, places, changes))
    image.load()
    data: NDArray[Any] = np.asarray(image)
    predictor = page.number(tag.PREDICTOR, 1)
    if predictor == 3:
        return _without_float_predictor(data, padded, across, channels, dtype)[:, :width]
    stored = dtype.newbyteorder(page.order)  # type: ignore[arg-type]
    samples = np.ascontiguousarray(data).view(stored).reshape(height, padded, channels)
    samples = samples.astype(dtype)
    if predictor == 2:
        if dtype.kind == "f":
            raise ValueError("its predictor is not for floats")
        for left in range(0, padded, across):
            part = samples[:, left : left + across]
            np.cumsum(part, axis=1, dtype=dtype, out=part)
    return samples[:, :width]


def _without_float_predictor(
    data: NDArray[np.uint8], padded: int, across: int, channels: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Undo the predictor of floats: Adobe Photoshop TIFF Technical Note 3."""
    height, size = len(data), dtype.itemsize
    parts = []
    for left in range(0, padded, across):
        start = left * channels * size
        part = data[:, start : start + across * channels * size]
        sums = np.cumsum(part.reshape(height, -1, channels), axis=1, dtype=np.uint8)
        # The bytes of each number lie apart, the highest ones first.
        planes = sums.reshape(height, size, across * channels)
        numbers = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
        parts.append(numbers.reshape(height, across, channels).astype(dtype))
    return np.concatenate(parts, axis=1)
