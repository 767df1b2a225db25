"""Twenty photographs, most of them of scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from support.daemons import SAMPLES

_OF_SCIKIT_IMAGE = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "color.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png",
    "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
_EXAMPLES = ("round_circle_01.png", "angular_star_01.png")


def photograph_files() -> list[Path]:
    """The files that scikit-image's wheel has, in colour and in grey, and two examples, which are not photographs."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    return [data / name for name in _OF_SCIKIT_IMAGE] + [SAMPLES / name for name in _EXAMPLES]


def copy_pictures(files: Sequence[Path], folder: Path) -> list[Path]:
    """Write *files* in RGB to *folder*/samples/, where `model add` finds them; their paths there, in its order.

    Colour profiles are left out: fluxdrop converts to sRGB, and the libraries do not.
    """
    samples = folder / "samples"
    samples.mkdir(parents=True)
    copies = [samples / f"{number:02}-{file.stem}.png" for number, file in enumerate(files)]
    for picture, copy in zip(read(files), copies, strict=True):
        picture.save(copy, icc_profile=None)
    return copies


def read(files: Sequence[Path]) -> list[Image.Image]:
    """*files* in RGB."""
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            pictures.append(picture.convert("RGB"))
    return pictures
