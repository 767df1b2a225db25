"""Thousands of pictures at once, against a bare loop that does no more than it must."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.station import SETTINGS, flood, pictures, tensor_of
from benchmarks.table import Row
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.classify import label_probabilities

_FEW, _MANY = 2_000, 100_000
_TIMES = 3


def rows() -> Iterator[Row]:
    """Drop to last durable result, the daemon and the loop in turns."""
    rounds = [(_loop(_FEW), *flood(_FEW)) for _ in range(_TIMES)]
    ratio = median(loop / daemon for loop, daemon, _ in rounds)
    what = "2,000 small PNGs at once, against a bare loop without fsync"
    yield Row(what, ">= 1.8", ratio, "x as fast", ratio >= 1.8)
    seconds, peak = flood(_MANY)
    growth = seconds / median(daemon for _, daemon, _ in rounds)
    what = "a file of 100,000 at once, against one of 2,000"
    yield Row(what, "<= 1.1", growth, "x", growth <= 1.1)
    more = peak - median(peak for _, _, peak in rounds)
    what = "the daemon's most memory with 100,000 at once, over that with 2,000"
    yield Row(what, "<= 50", more, "MB", more <= 50)


def _loop(count: int) -> float:
    """Seconds a picture: decode, preprocess, predict and write JSON, one picture after another."""
    bundle = load_bundle(SETTINGS.model)
    temporary = Path(tempfile.mkdtemp())
    folder = temporary / "batch"
    pictures(folder, count)
    with closing(open_engine(SETTINGS, bundle, cache=temporary)) as engine:
        started = perf_counter()
        for path in sorted(folder.iterdir()):
            raw = engine.predict(tensor_of(path, bundle))
            result = json.dumps(label_probabilities(raw[0], bundle))
            path.with_suffix(".json").write_text(result)
        return (perf_counter() - started) / count
