"""Read what a page of a TIFF says of its pixels, and write it as a TIFF of its own with nothing else in it.

So libtiff never meets what costs more than it should: other pages, loops of directories, tags with millions of values.
Format: TIFF 6.0 (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf); BigTIFF:
http://bigtiff.org/.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

SUBFILE, OLD_SUBFILE = 254, 255
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, CHANNELS, STRIP_ROWS, STRIP_BYTES = 273, 274, 277, 278, 279
MAX_SAMPLE, PLANAR, T4, T6, PREDICTOR, COLOURS = 281, 284, 292, 293, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
INKS, EXTRA, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING, BLACK_WHITE = 332, 338, 339, 347, 530, 532
PROFILE = 34675

_KEPT = {
    *(
        WIDTH,
        HEIGHT,
        BITS,
        COMPRESSION,
        PHOTOMETRIC,
        FILL_ORDER,
        CHANNELS,
        STRIP_ROWS,
        PLANAR,
        T4,
        T6,
    ),
    *(PREDICTOR, COLOURS, TILE_WIDTH, TILE_HEIGHT, INKS, EXTRA, SAMPLE_FORMAT, JPEG_TABLES),
    *(SUBSAMPLING, BLACK_WHITE),
}
"""The tags that matter for the pixels, without the places of the data."""
_READ = _KEPT | {
    SUBFILE,
    OLD_SUBFILE,
    STRIP_OFFSETS,
    STRIP_BYTES,
    TILE_OFFSETS,
    TILE_BYTES,
    ORIENTATION,
    MAX_SAMPLE,
    PROFILE,
}
_MAX_TAGS = 4096
_MAX_THUMBNAILS = 16
"""Of the pages before the one that is taken."""
_MAX_PARTS = 1 << 19
_MAX_VALUES = 1 << 18
"""Of a tag that is kept; a table of 16-bit colours has 3 * 65,536."""
_KINDS = {1: "u1", 3: "u2", 4: "u4", 5: "u4", 7: "u1", 13: "u4", 16: "u8", 18: "u8"}
"""The types of values that are read: numbers, as numpy names them. A fraction (5) is two."""

Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a TIFF."""

    tags: Mapping[int, Values]
    """The values of the tags that matter."""
    order: str
    """``<`` if the numbers are little-endian, else ``>``."""
    has_more: bool
    """Whether further pages follow."""
    position: int = 1
    """Its number in the file."""

    def number(self, tag: int, default: int) -> int:
        """Return the first value of *tag*."""
        values = self.tags.get(tag)
        return default if values is None or not len(values) else int(values[0])

    def numbers(self, tag: int) -> list[int]:
        """Return all values of *tag*; none if it is missing."""
        return [int(value) for value in self.tags.get(tag, ())]

    @property
    def is_reduced(self) -> bool:
        """Whether it is a smaller copy of another page, such as a thumbnail."""
        return bool(self.number(SUBFILE, 0) & 1) or self.number(OLD_SUBFILE, 1) == 2

    @property
    def is_tiled(self) -> bool:
        """Whether it is divided into tiles, not strips."""
        return TILE_OFFSETS in self.tags

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.number(WIDTH, 0), self.number(HEIGHT, 0)

    @property
    def part(self) -> tuple[int, int]:
        """The width and height of a strip or tile."""
        width, height = self.size
        if self.is_tiled:
            return self.number(TILE_WIDTH, 0), self.number(TILE_HEIGHT, 0)
        return width, min(self.number(STRIP_ROWS, height), height)


def read_page(file: IO[bytes]) -> Page:
    """Return the first page of the TIFF *file* that is no thumbnail; the first if all are.

    Raises:
        ValueError: It is damaged.
    """
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    is_big = head[2:4] in (b"+\0", b"\0+")
    if len(head) < 16:
        raise ValueError("its header is cut off")
    start = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)[0]
    first, following = _read_page_at(file, start, order, is_big)
    page, position = first, 1
    while page.is_reduced and following and position <= _MAX_THUMBNAILS:
        position += 1
        page, following = _read_page_at(file, following, order, is_big)
    return first if page.is_reduced else replace(page, position=position)


def _read_page_at(file: IO[bytes], start: int, order: str, is_big: bool) -> tuple[Page, int]:
    """Return the page whose tags begin at *start*, and where those of the next begin: 0 if there is none."""
    place, count, entry = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    tag_count = _unpacked(file, start, order + count)
    if not 0 < tag_count <= _MAX_TAGS:
        raise ValueError(f"it has {tag_count:,} tags")
    entries = file.read(tag_count * entry)
    if len(entries) < tag_count * entry:
        raise ValueError("its tags are cut off")
    more = file.read(struct.calcsize(place)).ljust(struct.calcsize(place), b"\0")
    following = int(struct.unpack(order + place, more)[0])
    tags: dict[int, Values] = {}
    size = file.seek(0, 2)
    for offset in range(0, len(entries), entry):
        tag, kind, values = struct.unpack_from(f"{order}HH{place}", entries, offset)
        if tag not in _READ or tag in tags or kind not in _KINDS:
            continue
        dtype = np.dtype(_KINDS[kind]).newbyteorder(order)  # type: ignore[arg-type]
        values *= 2 if kind == 5 else 1
        limit = size // dtype.itemsize if tag not in _KEPT else _MAX_VALUES
        if values > limit:
            if tag == PROFILE:
                continue
            raise ValueError(f"its tag {tag} has {values:,} values")
        inline = offset + entry - struct.calcsize(place)
        if values * dtype.itemsize <= struct.calcsize(place):
            data = entries[inline : inline + values * dtype.itemsize]
        else:
            file.seek(struct.unpack_from(order + place, entries, inline)[0])
            data = file.read(values * dtype.itemsize)
        if len(data) < values * dtype.itemsize:
            raise ValueError(f"its tag {tag} is cut off")
        tags[tag] = np.frombuffer(data, dtype)
    return Page(tags, order, following > 0), following


def _unpacked(file: IO[bytes], offset: int, form: str) -> int:
    # A seek beyond the largest offset of a file is an OverflowError or an OSError.
    if offset >= 1 << 62:
        raise ValueError("its first page lies beyond its end")
    file.seek(offset)
    data = file.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise ValueError("its first page lies beyond its end")
    return int(struct.unpack(form, data)[0])


def part_places(page: Page, file_bytes: int) -> list[tuple[int, int]]:
    """Return the offset and size in bytes of each strip or tile, as many as there have to be.

    Raises:
        ValueError: They are not there, or claim more than the file has.
    """
    width, height = page.size
    across, down = page.part
    if not (width and height and across and down):
        raise ValueError("it has no pixels")
    planes = page.number(CHANNELS, 1) if page.number(PLANAR, 1) == 2 else 1
    count = -(-width // across) * -(-height // down) * planes
    if count > _MAX_PARTS:
        raise ValueError(f"it has {count:,} strips or tiles")
    offsets = page.tags.get(TILE_OFFSETS if page.is_tiled else STRIP_OFFSETS)
    sizes = page.tags.get(TILE_BYTES if page.is_tiled else STRIP_BYTES)
    if offsets is not None and sizes is None and count == 1:
        sizes = np.array([max(0, file_bytes - int(offsets[0]))])
    if offsets is None or sizes is None or min(len(offsets), len(sizes)) < count:
        raise ValueError("the places of its pixels are missing")
    places = [(int(o), int(s)) for o, s in zip(offsets[:count], sizes[:count], strict=True)]
    if any(offset + size > file_bytes for offset, size in places):
        raise ValueError("its pixels lie beyond its end")
    # Parts may be shared, such as those of a plain colour, but not overlap.
    if sum(size for _, size in set(places)) > file_bytes:
        raise ValueError("its strips or tiles claim more bytes than the file has")
    return places


def rewritten(
    file: IO[bytes],
    page: Page,
    places: Sequence[tuple[int, int]],
    changes: Mapping[int, Sequence[int]],
) -> BytesIO:
    """Return a TIFF with the strips or tiles of *page* at *places* in *file*, and the tags that matter for the pixels.

    Args:
        file: The TIFF that has the data.
        page: Its first page.
        places: The offset and size of each strip or tile.
        changes: Values of tags that replace those of *page*; none remove a tag.
    """
    parts: list[bytes] = []
    found: dict[tuple[int, int], int] = {}
    end = 8
    for place in places:
        if place not in found:
            file.seek(place[0])
            found[place] = end
            parts.append(file.read(place[1]))
            end += place[1]
    if end >= 1 << 32:
        raise ValueError("its pixels take more than 4 GiB")
    tags: dict[int, Values | Sequence[int]] = {
        tag: values for tag, values in page.tags.items() if tag in _KEPT
    } | dict(changes)
    offsets, sizes = (TILE_OFFSETS, TILE_BYTES) if page.is_tiled else (STRIP_OFFSETS, STRIP_BYTES)
    tags[offsets] = [found[place] for place in places]
    tags[sizes] = [size for _, size in places]
    return BytesIO(_written(page.order, parts, end, {tag: v for tag, v in tags.items() if len(v)}))


def _written(
    order: str, parts: Sequence[bytes], end: int, tags: Mapping[int, Values | Sequence[int]]
) -> bytes:
    entries, data = [], []
    place = end + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        if tag in (JPEG_TABLES,):
            kind, form = 7, "u1"
        elif tag in (
            SUBSAMPLING,
            COLOURS,
            BITS,
            SAMPLE_FORMAT,
            EXTRA,
            COMPRESSION,
            PHOTOMETRIC,
            PLANAR,
        ):
            kind, form = 3, "u2"
        elif tag == BLACK_WHITE:
            kind, form = 5, "u4"
        else:
            kind, form = 4, "u4"
        raw = np.asarray(values).astype(np.dtype(form).newbyteorder(order)).tobytes()  # type: ignore[arg-type]
        count = len(values) // (2 if kind == 5 else 1)
        if len(raw) > 4:
            data.append(raw)
            value = struct.pack(f"{order}I", place)
            place += len(raw)
        else:
            value = raw.ljust(4, b"\0")
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, end)
    count_bytes = struct.pack(f"{order}H", len(tags))
    return b"".join([head, *parts, count_bytes, *entries, bytes(4), *data])
