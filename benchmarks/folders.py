"""A mixed flood for five folders with five models, against the same flood for one model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from benchmarks.station import SETTINGS, Station, pictures, serving
from benchmarks.table import Row
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle

_FEW, _COUNT = 250, 2_000
_TIMES = 3
_FOLDERS = [f"folder-{number}" for number in range(5)]
_ENGINES = ("julia", "onnxruntime")


def rows() -> Iterator[Row]:
    """Drop to last durable result with either engine, five models and one in turns."""
    for engine in _ENGINES:
        rounds = [
            _seconds(engine, has_models=False) / _seconds(engine, has_models=True)
            for _ in range(_TIMES)
        ]
        ratio = median(rounds)
        what = f"2,000 small PNGs mixed for 5 folders with 5 models ({engine}), against one model"
        yield Row(what, ">= 0.8", ratio, "x as fast", ratio >= 0.8)


def _seconds(engine: str, *, has_models: bool) -> float:
    """The seconds for a flood in which each picture is for another folder, after a smaller one of the same kind."""

    settings = ""
    if has_models:
        models = Path(tempfile.mkdtemp())
        for folder in _FOLDERS:
            shutil.copytree(load_bundle(SETTINGS.model).folder, models / folder)
            settings += f'[folders.{folder}]\nmodel = "{models / folder}"\n'
    with serving(settings, engine) as station:
        for folder in _FOLDERS:
            (station.root.inbox / folder).mkdir()
        while has_models and not _are_warm(station.root):
            sleep(0.05)
        _flood(station, "warm-up", _FEW, 0)
        return _flood(station, "measured", _COUNT, _FEW)


def _flood(station: Station, name: str, count: int, before: int) -> float:
    """Drop *count* pictures, each into another folder than the one before, after *before* others were done.

    Returns the seconds until all are done.
    """
    pictures(station.root.path / name, count)
    made = sorted((station.root.path / name).iterdir())
    started = perf_counter()
    for number, path in enumerate(made):
        folder = _FOLDERS[number % len(_FOLDERS)]
        path.rename(station.root.inbox / folder / f"{name}-{path.name}")
    station.wait_for(before + count)
    return perf_counter() - started


def _are_warm(root: Root) -> bool:
    warm = json.loads(root.heartbeat.read_bytes())["warm"]
    return len([one for one in warm if one["engine"]]) == len(_FOLDERS)
