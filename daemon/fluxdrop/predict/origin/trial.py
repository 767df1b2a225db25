"""Try a model on pictures, and compare it with the pipeline that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, alpha_composite
from PIL.Image import new as new_image

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.picture_formats import PICTURE_SUFFIXES
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.origin.trial_pictures import trial_pictures
from fluxdrop.predict.origin.weights import Original
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import fit, normalise
from fluxdrop.printable import printable

if TYPE_CHECKING:
    from fluxdrop.predict.engine import Engine

EQUAL = 1e-3
"""The largest difference of two probabilities at which two pipelines count as equal."""
REFUSED = 1e-2
"""The difference from which a model is not added: its pictures are made in another way."""
PREVIEWS = "tried"
"""The folder of a bundle with what the model saw of the pictures that it was tried on."""
_BATCH = 8
_MOST_SAMPLES = 20


class Picture(NamedTuple):
    """A picture to try a model on."""

    name: str
    image: Image


class Trial(NamedTuple):
    """What a model says of a picture."""

    name: str
    raw: NDArray[np.float32]
    """The model's output [K]."""
    seen: Image
    """The picture as the model saw it, before it was normalised."""


class Comparison(NamedTuple):
    """How far fluxdrop is from the pipeline that a model comes from."""

    original: str
    """That pipeline: the library and what prepares its pictures."""
    pictures: int
    difference: float
    """The largest difference of two probabilities; without probabilities, relative to the largest number."""
    levels: float
    """The largest difference of two inputs, in levels of 0 to 255."""
    same_first: int
    """For how many of the pictures both put the same label first."""

    @property
    def told(self) -> str:
        """The comparison as a part of a sentence."""
        return (
            f"on {self.pictures} pictures within {self.difference:.1e} of {self.original}, with the same label first on"
            f" {self.same_first}"
        )


def read_pictures(files: Sequence[Path], settings: Settings) -> list[Picture]:
    """Decode *files*, as RGB; what is transparent becomes white, so that every pipeline sees the same.

    Raises:
        FluxdropError: Kind ``picture``, when one cannot be decoded.
    """
    most_bytes, most_pixels = settings.max_file_bytes, settings.max_pixels
    pictures = []
    for file in files:
        image, _ = open_picture(file, max_file_bytes=most_bytes, max_pixels=most_pixels)
        if image.mode in ("LA", "RGBA"):
            white = new_image("RGBA", image.size, "white")
            image = alpha_composite(white, image.convert("RGBA"))
        pictures.append(Picture(file.name, image.convert("RGB")))
    return pictures


def own_pictures() -> list[Picture]:
    """Return pictures to compare two pipelines with, where there are no others."""
    return [Picture(str(number), image) for number, image in enumerate(trial_pictures())]


def sample_files(folder: Path) -> list[Path]:
    """Return the pictures in the folder's samples/, by their suffixes, sorted, as many as are tried."""
    found = folder.glob("samples/[!.]*")
    return sorted(path for path in found if path.suffix.lower() in PICTURE_SUFFIXES)[:_MOST_SAMPLES]


def try_pictures(bundle: Bundle, engine: Engine, pictures: Sequence[Picture]) -> list[Trial]:
    """Run the model on *pictures*, which go through *bundle*'s preprocessing.

    Raises:
        FluxdropError: The engine fails.
    """
    trials = []
    for start in range(0, len(pictures), _BATCH):
        part = pictures[start : start + _BATCH]
        seen = [fit(picture.image, bundle.spec.input) for picture in part]
        rows = engine.predict(normalise(seen, bundle.spec.input))
        trials += [
            Trial(picture.name, row, image)
            for picture, row, image in zip(part, rows, seen, strict=True)
        ]
    return trials


def compare_pipelines(bundle: Bundle, trials: Sequence[Trial], original: Original) -> Comparison:
    """Compare *trials* with what *original* made of the same pictures.

    Raises:
        FluxdropError: Kind ``model``, when the two do not give as many numbers.
    """
    found = np.stack([_comparable(trial.raw, bundle) for trial in trials])
    if original.outputs.shape[1:] != trials[0].raw.shape:
        raise FluxdropError(
            f"{original.library} gives {original.outputs.shape[1]} numbers a picture, and the exported model"
            f" {len(trials[0].raw)}",
            kind="model",
        )
    wanted = np.stack([_comparable(row, bundle) for row in original.outputs])
    spec = bundle.spec.input
    inputs = normalise([trial.seen for trial in trials], spec)
    levels = float("inf")
    if inputs.shape == original.inputs.shape:
        steps = np.asarray(spec.std, dtype=np.float64) * spec.scale
        steps = steps if spec.layout == "NHWC" else steps.reshape(-1, 1, 1)
        levels = float(np.abs((inputs.astype(np.float64) - original.inputs) * steps).max())
    # Of two labels that the original itself can hardly tell apart, either may be the first.
    first = np.take_along_axis(wanted, found.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return Comparison(
        f"{original.library} ({original.processor})",
        len(trials),
        float(np.abs(found - wanted).max()),
        levels,
        int((first >= wanted.max(axis=1) - EQUAL).sum()),
    )


def refuse_another(source: Path, comparison: Comparison) -> None:
    """Check that a model answers as the pipeline that it comes from.

    Raises:
        FluxdropError: Kind ``model``, when it does not.
    """
    if comparison.difference <= REFUSED and comparison.same_first == comparison.pictures:
        return
    raise FluxdropError(
        f"{source} would give other answers than {comparison.original}: off by {comparison.difference:.2g}, the same"
        f" first for {comparison.same_first} of {comparison.pictures} pictures, which differ by up to"
        f" {comparison.levels:.3g} of 255 levels",
        hint="This is a defect of fluxdrop; please report it with the folder's JSON files. Say how pictures are made"
        " with --size, --resize, --filter, --mean and --std to add it all the same.",
        kind="model",
    )


def _comparable(row: NDArray[np.float32], bundle: Bundle) -> NDArray[np.float64]:
    """Return a row as probabilities, or divided by its largest number where it is none of probabilities."""
    if bundle.spec.output in ("regression", "embedding"):
        values = row.astype(np.float64)
        return values / max(float(np.abs(values).max()), 1.0)
    return np.array(list(label_probabilities(row, bundle).values()))


def keep_previews(folder: Path, trials: Sequence[Trial]) -> None:
    """Write what the model saw of each picture to ``tried/`` in *folder*, as PNG."""
    if not trials:
        return
    kept = folder / PREVIEWS
    kept.mkdir()
    for number, trial in enumerate(trials, start=1):
        trial.seen.save(kept / preview_name(number, trial))


def preview_name(number: int, trial: Trial) -> str:
    """Return the name of the preview of *trial*, the picture of this *number*."""
    return f"{number:02}-{printable(Path(trial.name).stem)[:80]}.png"
