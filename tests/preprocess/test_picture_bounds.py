"""What a picture may cost: its bytes, pixels, frames and scans."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from fluxdrop.preprocess.jpeg import MAX_SCANS, outline_of
from fluxdrop.preprocess.picture import open_picture
from support.pictures import RGB, opened, png, refusal, saved


@pytest.mark.parametrize(("most", "is_taken"), [(24, True), (23, False)])
def test_most_pixels(tmp_path: Path, most: int, is_taken: bool) -> None:
    """A picture may have as many pixels as the limit, and not one more."""
    path = saved(tmp_path, RGB)

    if is_taken:
        assert RGB.size == opened(path, max_pixels=most)[0].size
    else:
        assert "6 x 4 pixels, over the limit of 23" in refusal(path, max_pixels=most).message


def test_most_bytes(tmp_path: Path) -> None:
    """A file over the limit is refused before it is read."""
    path = tmp_path / "cat.png"
    path.touch()
    os.truncate(path, 100_001)

    assert "100,001 bytes, over the limit of 100,000" in refusal(path).message


def bomb(file_format: str) -> bytes:
    if file_format == "PNG":
        return png(100_000, 100_000, (b"IDAT", zlib.compress(bytes(1000))))
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, format=file_format, lossless=True)
    data = bytearray(file.getvalue())
    if file_format == "JPEG":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    else:
        data[21:25] = struct.pack("<I", 0x0FFFFFFF)
    return bytes(data)


@cache
def zeros() -> bytes:
    """256 MB of zero bytes, deflated to a thousandth."""
    packer = zlib.compressobj(1)
    packed = [packer.compress(bytes(1 << 20)) for _ in range(256)]
    return b"".join([*packed, packer.flush()])


def animation(file_format: str, size: int) -> bytes:
    """100 frames."""
    frames = [Image.new("L", (size, size), number) for number in range(100)]
    file = io.BytesIO()
    frames[0].save(file, file_format, save_all=True, append_images=frames[1:])
    return file.getvalue()


def huge_canvas() -> bytes:
    """A small animated WebP that announces the largest canvas."""
    data = bytearray(animation("WEBP", 16))
    place = data.index(b"VP8X")
    data[place + 12 : place + 18] = b"\xfe\xff\0" * 2
    return bytes(data)


OPEN_ALL = """
import json, sys
from pathlib import Path
from PIL import Image
from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.picture import open_picture
Image.init()
def most_memory():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
outcomes, before = {}, most_memory()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image, _ = open_picture(path, max_file_bytes=10**8, max_pixels=10**8)
        outcome = f"{image.width} x {image.height}"
    except FluxdropError as error:
        outcome = error.message
    outcomes[path.name] = [outcome, most_memory() - before]
print(json.dumps(outcomes))
"""


def test_bombs(tmp_path: Path) -> None:
    """What announces a huge picture is refused by its header, pixels that unpack to more than they should are
    cut, metadata are skipped, of many frames the first is decoded: none costs more than 64 MB.
    """
    pixels = (b"IDAT", zlib.compress(bytes(72)))
    huge = "over the limit of 100,000,000"
    texts = [(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 20
    files = {
        "header.png": (bomb("PNG"), huge),
        "header.jpg": (bomb("JPEG"), huge),
        "header.webp": (bomb("WEBP"), huge),
        "canvas.webp": (huge_canvas(), huge),
        "pixels.png": (png(8, 8, (b"IDAT", zeros()), colour=0), "8 x 8"),
        "texts.png": (png(8, 8, *texts, pixels, colour=0), "8 x 8"),
        "zTXt.png": (png(8, 8, (b"zTXt", b"a\0\0" + zeros()), pixels, colour=0), "8 x 8"),
        "iTXt.png": (png(8, 8, (b"iTXt", b"a\0\1\0\0\0" + zeros()), pixels, colour=0), "8 x 8"),
        "iCCP.png": (png(8, 8, (b"iCCP", b"a\0\0" + zeros()), pixels, colour=0), "8 x 8"),
        "tEXt.png": (png(8, 8, (b"tEXt", b"a\0" + bytes(1 << 23)), pixels, colour=0), "8 x 8"),
        "frames.png": (animation("PNG", 100), "100 x 100"),
        "frames.webp": (animation("WEBP", 100), "100 x 100"),
    }
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)

    run = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, tmp_path], capture_output=True, text=True, check=True
    )

    outcomes = json.loads(run.stdout)
    assert files.keys() == outcomes.keys()
    assert {} == {
        name: (outcome, megabytes)
        for name, (outcome, megabytes) in outcomes.items()
        if files[name][1] not in outcome or megabytes > 64
    }


def progressive(scans: int) -> bytes:
    """A progressive JPEG with a thumbnail of its own and so many scans, nearly all of them empty."""
    exif = Image.Exif()
    exif[0x010E] = "a thumbnail \xff\xda.".encode("latin-1") * 200
    file = io.BytesIO()
    RGB.resize((64, 48)).save(file, "JPEG", progressive=True, exif=exif)
    data = file.getvalue()
    marker = b"\xff\xda\0"
    last = data[data.rindex(marker) : -2]
    return data[:-2] + last * (scans - data.count(marker)) + data[-2:]


@pytest.mark.parametrize(("scans", "is_taken"), [(10, True), (100, True), (101, False)])
def test_most_scans(tmp_path: Path, scans: int, is_taken: bool) -> None:
    """A JPEG with very many scans, each of a few bytes, is refused."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(progressive(scans))

    if is_taken:
        assert (64, 48) == opened(path)[0].size
    else:
        assert "is a JPEG with more than 100 scans" in refusal(path).message


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (progressive(10), 10),
        (b"\xff\xd8\xff\xd9", 0),
        (b"\xff\xd8" + b"\xff\xda\0\2" * 7, 7),
        (b"\xff\xd8" + b"\xff\xda\0\2\xff\0\xff\xd0x" * 7 + b"\xff\xff\xff\xd9\xff\xda", 7),
        (b"\xff\xd8" + b"\xff\xda\0\2" * 120, MAX_SCANS + 1),
        (b"\xff\xd8" + b"\xff\xe1\0\2" * 50_000, MAX_SCANS + 1),
        (b"\xff\xd8" + b"\xff\xe1\0\0" * 50 + b"\xff\xda\0\2", 1),
        (b"\xff\xd8" + b"x" * 65535 + b"\xff\xda\0\2", 1),
        (b"", 0),
    ],
)
def test_count_scans(data: bytes, scans: int) -> None:
    """Scans are counted by their markers: not those in metadata, nor those after the end."""
    outline = outline_of(io.BytesIO(data))

    assert (scans > MAX_SCANS) is outline.has_too_many_scans
    if not outline.has_too_many_scans:
        assert scans == outline.scans


@pytest.mark.parametrize(("missing", "is_taken"), [(0, True), (1, True), (2, True), (5, False)])
@pytest.mark.parametrize("scans", [1, 10])
def test_jpeg_without_end(tmp_path: Path, missing: int, is_taken: bool, scans: int) -> None:
    """A JPEG that lacks the mark of its end alone decodes, and that is said; one that lacks pixels is refused."""
    path = saved(tmp_path, RGB, "JPEG", progressive=scans > 1)
    data = path.read_bytes()
    whole, _ = opened(path)
    path.write_bytes(data[: len(data) - missing])
    notes: list[str] = []

    if is_taken:
        shown, _ = open_picture(path, max_file_bytes=10**6, max_pixels=10**6, notes=notes)
        assert whole.tobytes() == shown.tobytes()
        assert bool(missing) is bool(notes)
    else:
        assert "is damaged or cut off" in refusal(path).message
