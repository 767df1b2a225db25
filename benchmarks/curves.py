"""Two plots: the rate against the number of files, and the latency against the rate at which files come."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import quantiles
from time import sleep, time
from typing import NamedTuple

from benchmarks.station import seconds_a_picture, serving

PLOT = Path(__file__).parents[1] / "docs" / "performance.svg"

_SAMPLE = Path(__file__).parents[1] / "examples" / "round_ring_01.png"
_COUNTS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000)
_RATES = (1, 5, 10, 20, 50, 100, 200, 400, 600)
_SECONDS = 10.0
_MIN_FILES = 20


class Latency(NamedTuple):
    """How long files waited for their durable results while *rate* of them came in a second."""

    rate: float
    half: float
    """Half of them waited no longer, in milliseconds."""
    most: float
    """95 of 100 waited no longer, in milliseconds."""


class Curves(NamedTuple):
    """What the plots show."""

    rates: list[tuple[int, float]]
    """Numbers of small PNGs dropped at once, with the results a second."""
    latencies: list[Latency]


def measure() -> Curves:
    """Measure both; takes some minutes."""
    rates = [(count, 1 / seconds_a_picture(count)) for count in _COUNTS]
    return Curves(rates, [_latency(rate) for rate in _RATES])


def draw(curves: Curves, path: Path = PLOT) -> None:
    """Draw *curves* into *path*, an SVG file."""
    import matplotlib as mpl

    mpl.use("svg")
    # So the file differs only where the figures do.
    mpl.rcParams |= {
        "svg.hashsalt": "fluxdrop",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
    }
    from matplotlib import pyplot, ticker

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(*zip(*curves.rates, strict=True), marker="o", color="#2a6f97")
    left.set(
        xscale="log", ylim=(0, None), xlabel="files dropped at once", ylabel="results a second"
    )
    came = [latency.rate for latency in curves.latencies]
    for name, values, style in (
        ("95 of 100", [latency.most for latency in curves.latencies], "--"),
        ("half", [latency.half for latency in curves.latencies], "-"),
    ):
        right.plot(came, values, style, marker="o", color="#2a6f97", label=f"{name} within")
    right.set(
        xscale="log",
        yscale="log",
        ylim=(1, 10_000),
        xlabel="files a second",
        ylabel="ms from drop to result",
    )
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(color="#dddddd")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(ticker.NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _latency(rate: float) -> Latency:
    """Drop small PNGs at *rate* into a warm daemon, each by one rename, and see when their jobs were over."""
    count = max(_MIN_FILES, round(rate * _SECONDS))
    with serving() as station:
        dropped = []
        started = time()
        for number in range(count):
            copy = station.root.path / f"{number}.png"
            shutil.copyfile(_SAMPLE, copy)
            sleep(max(0.0, started + number / rate - time()))
            dropped.append(time())
            copy.rename(station.root.inbox / copy.name)
        station.wait_for(count)
        sleep(1)
        # The last change of a record's inode is that the job's folder no longer links it: all of it is on the disk.
        waited = [
            1000 * ((station.root.outputs / f"{number}.json").stat().st_ctime - begun)
            for number, begun in enumerate(dropped)
        ]
    parts = quantiles(waited, n=100)
    return Latency(rate, parts[49], parts[94])
