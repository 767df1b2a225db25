"""A station with hosts in namespaces of this machine, whose pictures take two seconds or no time at all.

The pipeline of the generator processes sleeps (`tests/timed_pipeline`), as the processors of one machine could not make
the pictures of four. All else is as on machines of their own, but shares the processors of this one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import TESTS
from benchmarks.table import Row
from fluxdrop.files.layout import Root

if TYPE_CHECKING:
    from hosts import Cluster

_HOSTS = 4
_LONG = "2s\nSize: 592x592"
"""A picture of 1 MB that takes two seconds."""
_SHORT = "0.1s\nSize: 592x592"
_NOTHING = "0s flat\nSize: 512x512"
_SETTINGS = {"engine": "onnxruntime", "settle_seconds": 0.1, "gallery": "false"}


def rows() -> Iterator[Row]:
    """Throughput against one host, what a picture costs more than on the station, and what a root can publish."""
    import hosts

    if reason := hosts.missing():
        yield Row("a cluster", "", None, f"not measured: {reason}", None)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        _sleeping_pipelines(),
        hosts.cluster(Path(folder), _HOSTS) as cluster,
    ):
        for count in (2, _HOSTS):
            # In turns, as other programs may be at work, too.
            before = _rate(cluster, "", _LONG, 10)
            together = _rate(cluster, hosts.address(), _LONG, 10 * count, count)
            figure = together / max(before, _rate(cluster, "", _LONG, 10))
            what = f"pictures of 2 s and 1 MB, {count} hosts against one machine"
            yield Row(what, f">= {0.9 * count:g}", figure, "x", figure >= 0.9 * count)
        local = _milliseconds(cluster, "", _SHORT)
        figure = _milliseconds(cluster, hosts.address(), _SHORT) - local
        what = "a picture of 1 MB from a host, over one from the station"
        yield Row(what, "<= 60", figure, "ms", figure <= 60)
        figure = _rate(cluster, hosts.address(), _NOTHING, 400)
        yield Row("pictures of no time, which one root publishes", "measured", figure, "/s", True)


@contextmanager
def _sleeping_pipelines() -> Iterator[None]:
    """Have the processes that are started meanwhile sleep instead of computing."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(TESTS / "timed_pipeline"), before])
    )
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


def _rate(cluster: Cluster, address: str, prompt: str, count: int, hosts: int = 0) -> float:
    """Results a second while *count* prompts are done, from the first result on; by at most *hosts* hosts."""
    records = _done(cluster, address, [prompt] * count, hosts)
    ends = sorted(datetime.fromisoformat(record["finished"]) for record in records)
    # The first ones wait for the processes to start.
    first = max(1, hosts)
    return (count - first) / (ends[-1] - ends[first - 1]).total_seconds()


def _milliseconds(cluster: Cluster, address: str, prompt: str) -> float:
    """The median time that the stage takes over a prompt, one at a time."""
    records = _done(cluster, address, [f"{prompt}, Batch size: 30"], 1)
    taken: list[float] = [record["timings_ms"]["generate"] for record in records]
    return median(taken)


def _done(cluster: Cluster, address: str, texts: list[str], most: int) -> list[dict[str, Any]]:
    """The results of *texts*, dropped at once on a daemon of the station."""
    from support.daemons import ends, failures, results

    with tempfile.TemporaryDirectory() as folder:
        root = Root(Path(folder) / "root")
        root.create()
        count = sum(30 if "Batch" in text else 1 for text in texts)
        settings = {**_SETTINGS, "cluster": address, "cluster_most": most}
        with cluster.station.daemon(root, **settings) as daemon:
            for number, text in enumerate(texts):
                (root.path / f"{number}.txt").write_text(text + "\n")
            for number in range(len(texts)):
                (root.path / f"{number}.txt").rename(root.inbox / f"{number}.txt")
            daemon.wait_until(lambda: len(ends(root)) >= count, f"{count} ends")
            daemon.stop()
        found = list(results(root).values())
    assert len(found) == count, failures(root)
    return found
