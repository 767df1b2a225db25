"""Damaged pictures of every format: each is decoded or refused, and takes no more memory than its pixels may."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.mutations import mutated_bytes
from support.picture_kinds import deep_png, lossless, pillow_tiff, saved_bytes, tiff

GRADIENT = Image.radial_gradient("L").resize((24, 16))
RGB = Image.merge("RGB", [GRADIENT, GRADIENT.rotate(180), GRADIENT])
DEEP = np.random.default_rng(18).integers(0, 1 << 16, (16, 24, 4), np.uint16)

OPEN_ALL = """
import json, sys
from pathlib import Path
from fluxdrop.errors import FluxdropError
from fluxdrop.preprocess.picture import open_picture
def most_memory():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
first = most_memory()
odd, taken, refused = [], 0, 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        open_picture(path, max_file_bytes=10**6, max_pixels=10**6, deep=True)
        taken += 1
    except FluxdropError as error:
        refused += bool(error.hint)
    except BaseException as error:
        odd.append([path.name, repr(error)[:200]])
print(json.dumps([odd, taken, refused, most_memory() - first]))
"""


def originals(kind: str) -> list[bytes]:
    """Small pictures of a format, of several kinds."""
    match kind:
        case "TIFF":
            return [
                lossless(RGB)["lzw.tif"],
                tiff(DEEP[..., :3], tile=(16, 16)),
                tiff((DEEP[..., :1] / 65535).astype(np.float32), {317: [3]}),
                pillow_tiff(RGB, "jpeg"),
                pillow_tiff(RGB.convert("P"), "packbits"),
            ]
        case "PNG":
            return [deep_png(DEEP[..., :3]), deep_png(DEEP[..., :2])]
        case "PPM":
            found = lossless(RGB)
            return [
                *(found[name] for name in ("binary.ppm", "text.ppm", "pam.pam")),
                saved_bytes(RGB.convert("1"), "PPM"),
                b"PF\n24 16\n-1.0\n" + DEEP.astype("<f4").tobytes(),
            ]
        case "JPEG2000":
            found = lossless(RGB)
            return [found["jpeg2000.jp2"], found["codestream.j2k"]]
        case "BMP" | "GIF":
            return [saved_bytes(RGB.convert("P"), kind), saved_bytes(RGB, kind)]
        case "HEIF":
            heif = pytest.importorskip("pillow_heif")
            file = io.BytesIO()
            heif.from_pillow(RGB).save(file)
            return [file.getvalue()]
    return [saved_bytes(RGB, kind)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "HEIF", "PPM"]
)
def test_mutants(tmp_path: Path, kind: str) -> None:
    """Each of 500 mutants is decoded or refused with a hint, within the memory of a picture of a megapixel."""
    made = originals(kind)
    for number, original in enumerate(made):
        for place, mutant in enumerate(mutated_bytes(original, 500 // len(made), seed=2026)):
            (tmp_path / f"{number}-{place}").write_bytes(mutant)

    run = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, tmp_path], capture_output=True, text=True, check=True
    )

    odd, taken, refused, megabytes = json.loads(run.stdout)
    assert [] == odd
    assert 500 == taken + refused
    assert (True, True) == (taken > 0, refused > 0)
    assert 200 > megabytes
