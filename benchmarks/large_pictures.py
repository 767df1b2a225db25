"""Photos, deep TIFFs and WebPs as people drop them, against a bare loop; photos that are decoded smaller."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.networks import exported
from benchmarks.station import SETTINGS, Station, serving, tensor_of
from benchmarks.table import Row
from fluxdrop.config import Settings
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.classify import label_probabilities

_DIFFERENT = 6
"""How many pictures are drawn; the others are copies."""
_ROUNDS = 3
_MODEL_TOML = """
output = "logits"
[input]
size = [224, 224]
resize = "crop"
resize_to = 256
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


class _Flood(NamedTuple):
    """Pictures that are dropped at once."""

    what: str
    number: int
    size: tuple[int, int]
    suffix: str
    save: Callable[[NDArray[np.float32], Path], None]
    model: Callable[[], str]
    target: float


def rows() -> Iterator[Row]:
    """Drop to last durable result, in turns the daemon and the loop, and the daemon with and without ``fast_jpeg``."""
    floods = (
        _Flood(
            "300 photos of 12 megapixels (JPEG), ResNet-18",
            300,
            (4000, 3000),
            "jpg",
            _save_jpeg,
            _resnet,
            1.8,
        ),
        _Flood(
            "2,000 TIFFs of 16 bits and a megapixel, the embedded model",
            2_000,
            (1152, 896),
            "tif",
            _save_tiff,
            _embedded,
            1.6,
        ),
        _Flood(
            "2,000 WebPs of a megapixel, the embedded model",
            2_000,
            (1152, 896),
            "webp",
            _save_webp,
            _embedded,
            1.6,
        ),
    )
    for flood in floods:
        ratios = []
        for _ in range(_ROUNDS):
            with tempfile.TemporaryDirectory() as temporary:
                ratios.append(_ratio(flood, Path(temporary)))
        ratio = median(ratios)
        what = f"{flood.what}, against a bare loop without fsync"
        yield Row(what, f">= {flood.target}", ratio, "x as fast", ratio >= flood.target)
    photos = floods[0]
    gains = [_seconds(photos) / _seconds(photos, "fast_jpeg = true\n") for _ in range(_ROUNDS)]
    what = f"{photos.what}, fast_jpeg, against the same without"
    yield Row(what, "measured", median(gains), "x as fast", True)


def _ratio(flood: _Flood, temporary: Path) -> float:
    """How many times as fast the daemon is as the loop, with the same files on the same filesystem."""
    with _ready(flood) as (station, folder):
        loop = _loop(folder, flood.model(), temporary)
        return loop / _drop(station, folder, flood.number)


def _seconds(flood: _Flood, settings: str = "") -> float:
    """Seconds that a daemon of its own takes, which has these *settings*."""
    with _ready(flood, settings) as (station, folder):
        return _drop(station, folder, flood.number)


@contextmanager
def _ready(flood: _Flood, settings: str = "") -> Iterator[tuple[Station, Path]]:
    """A daemon with the model and these *settings*, lines of its fluxdrop.toml, and a folder of the pictures."""
    with serving(f'model = "{flood.model()}"\n{settings}') as station:
        folder = station.root.path / "batch"
        _fill(folder, flood)
        yield station, folder
    # Its files have gigabytes, and are few: the filesystem is not slower after their end.
    shutil.rmtree(station.root.path)


def _drop(station: Station, folder: Path, number: int) -> float:
    """Seconds from the drop of *folder* to the last durable result of its *number* of pictures."""
    started = perf_counter()
    folder.rename(station.root.inbox / "batch")
    station.wait_for(number)
    return perf_counter() - started


def _loop(folder: Path, model: str, temporary: Path) -> float:
    """Seconds to decode, preprocess, predict and write as JSON one picture after another."""
    settings = Settings(engine=SETTINGS.engine, model=model)
    bundle = load_bundle(model)
    with closing(open_engine(settings, bundle, cache=temporary)) as engine:
        started = perf_counter()
        for path in sorted(folder.iterdir()):
            raw = engine.predict(tensor_of(path, bundle))
            result = json.dumps(label_probabilities(raw[0], bundle))
            (temporary / f"{path.stem}.json").write_text(result)
        return perf_counter() - started


def _fill(folder: Path, flood: _Flood) -> None:
    """Fill *folder*, a new one, with the pictures, and wait until they are on the disk."""
    folder.mkdir()
    samples = []
    for number in range(_DIFFERENT):
        sample = folder / f"{number:05}.{flood.suffix}"
        flood.save(_natural(*flood.size, number), sample)
        samples.append(sample)
    for number in range(_DIFFERENT, flood.number):
        shutil.copyfile(samples[number % _DIFFERENT], folder / f"{number:05}.{flood.suffix}")
    os.sync()


def _natural(width: int, height: int, seed: int) -> NDArray[np.float32]:
    """A picture with the statistics of photos, (height, width, 3), mostly from 0 to 1.

    It has noise whose amplitude falls with its frequency, as in natural scenes (Field 1987,
    https://doi.org/10.1364/JOSAA.4.002379), and smooth changes of colour.
    """
    random = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequencies[0, 0] = 1
    noise = np.fft.rfft2(random.standard_normal((height, width)))
    scene = np.fft.irfft2(noise / frequencies, s=(height, width))
    scene /= scene.std()
    colours = [
        Image.fromarray(random.standard_normal((6, 8)).astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for _ in range(3)
    ]
    picture = np.stack([0.5 + 0.12 * scene + 0.08 * np.asarray(colour) for colour in colours], -1)
    return picture.clip(0, 1).astype(np.float32)


def _save_jpeg(picture: NDArray[np.float32], path: Path) -> None:
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(
        path, quality=90, subsampling="4:2:0"
    )


def _save_webp(picture: NDArray[np.float32], path: Path) -> None:
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(path, quality=90)


def _save_tiff(picture: NDArray[np.float32], path: Path) -> None:
    """Save the picture in grey, as microscopes and scanners do: Pillow has no colours of 16 bits."""
    grey = np.rint(picture.mean(axis=2) * 65535).astype(np.uint16)
    Image.fromarray(grey).save(path)


def _embedded() -> str:
    return SETTINGS.model


@cache
def _resnet() -> str:
    """Return the folder of a bundle with a ResNet-18 with random weights."""
    folder = Path(tempfile.mkdtemp())
    onnx, labels = exported("ResNet")
    (folder / "model.onnx").write_bytes(onnx)
    names: list[Any] = [f"class {number}" for number in range(labels)]
    (folder / "model.toml").write_text(f"labels = {json.dumps(names)}{_MODEL_TOML}")
    return str(folder)
