"""A cluster that loses its parts again and again under a stream of prompts; `make torture CLUSTER=300`.

After each loss, when all that was dropped has ended: nothing is lost, nothing is there twice, and no picture is one
of an attempt that was given up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

import hosts
from fluxdrop.files.layout import Root
from fluxdrop.records.result import Result, decode
from hosts import Cluster
from support.audit import audit, source_digest
from support.daemons import Daemon, ends
from support.remote_hands import TIMED_PIPELINE
from support.stream import Stream

POINTS = (
    "dispatched",
    "answer-received",
    "fence-passed",
    "generation-divided",
    "generation-seeded",
    "generation-in-place",
    "generation-recorded",
)
LOSSES = ("kill", "cut", "stop", "broker", "daemon", "agent", "head")
_WEIGHTS = (5, 4, 4, 8, 6, 1, 1)
_KINDS = ("timed", "timed", "timed", "timed-several", "png")
_EVENTS_A_ROOT = 20
_LEDGER = "TIMED_PIPELINE_LEDGER"
_PATIENCE = 400.0


def events(count: int, rng: random.Random) -> list[str]:
    """*count* events: every loss and every point, then half of each at random."""
    made = [*LOSSES[:-2], *POINTS]
    while len(made) < count:
        either = rng.choices(LOSSES, _WEIGHTS)[0], rng.choice(POINTS)
        made.append(rng.choice(either))
    rng.shuffle(made)
    return made[:count]


class ClusterTorture:
    """A root on the station of *cluster*, whose pictures are noted in *ledger*."""

    def __init__(self, cluster: Cluster, root: Root, ledger: Path, rng: random.Random) -> None:
        self._cluster = cluster
        self._root = root
        self._ledger = ledger
        self._rng = rng
        self._root.create()
        self._stream = Stream(root, rng)
        self._settings = {
            "cluster": hosts.address(),
            "engine": "onnxruntime",
            "settle_seconds": 0.1,
            "results_csv": "true",
        }

    def run(self, chosen: Sequence[str], on_event: Callable[[str], None]) -> None:
        """Go through the events *chosen*, and audit the root."""
        rest = list(chosen)
        while rest:
            with self._daemon() as daemon:
                while rest and rest[0] in LOSSES:
                    event = rest.pop(0)
                    self._feed(self._rng.randint(2, 4))
                    time.sleep(self._rng.uniform(0, 1.5))
                    if event == "daemon":
                        daemon.process.kill()
                        on_event(event)
                        break
                    self._lose(event, daemon)
                    self._come_to_rest(daemon)
                    on_event(event)
            if rest and rest[0] in POINTS:
                event = rest.pop(0)
                self._die_at(event)
                on_event(event)
        with self._daemon() as daemon:
            self._come_to_rest(daemon)
            assert 0 == daemon.stop()
        audit(self._root, self._stream.dropped, {}, {}, self._stream.several)

    @contextmanager
    def _daemon(self) -> Iterator[Daemon]:
        with self._cluster.station.daemon(self._root, **self._settings) as daemon:
            yield daemon

    def _feed(self, count: int) -> None:
        for _ in range(count):
            self._stream.drop(_KINDS)

    def _die_at(self, point: str) -> None:
        """Have a daemon be killed at *point*."""
        kinds = ("timed-several",) if point == "generation-divided" else ("timed",)
        name = f"{point}:{1 if point == 'generation-divided' else self._rng.randint(1, 2)}"
        with self._cluster.station.started(self._root, failpoint=name, **self._settings) as daemon:
            deadline = time.monotonic() + _PATIENCE
            while daemon.process.poll() is None:
                assert time.monotonic() < deadline, (
                    f"not killed at {name}: {daemon.log_text()[-3000:]}"
                )
                self._tend()
                if not self._waiting():
                    self._stream.drop(kinds)
                time.sleep(0.2)
            assert -signal.SIGKILL == daemon.process.wait(), name

    def _lose(self, event: str, daemon: Daemon) -> None:
        host = self._rng.choice(self._cluster.hosts)
        match event:
            case "kill":
                host.kill()
                host.boot()
                host.start_ray()
            case "cut":
                host.cut()
                self._wait_a_while(daemon)
                host.heal()
            case "stop":
                host.stop()
                self._wait_a_while(daemon)
                host.cont()
            case "head":
                self._cluster.station.kill_processes(hosts.is_of_ray)
            case "agent":
                self._cluster.station.kill_processes(lambda words: "ray::RuntimeEnvAgent" in words)
            case "broker":
                self._cluster.station.kill_processes(
                    lambda words: "fluxdrop.cluster.broker" in words
                )

    def _wait_a_while(self, daemon: Daemon) -> None:
        """Wait for a moment, or until everything ended without the host that is away."""
        if self._rng.random() < 0.3:
            self._come_to_rest(daemon)
        else:
            time.sleep(self._rng.uniform(0.1, 4))

    def _tend(self) -> None:
        """Start Ray again where it ended, as the units do."""
        for machine in self._cluster.machines.values():
            machine.restart_ray()

    def _waiting(self) -> int:
        """How many jobs are unfinished."""
        wanted = sum(self._stream.several.get(digest, 1) for digest in self._stream.dropped)
        return wanted - len(ends(self._root))

    def _come_to_rest(self, daemon: Daemon) -> None:
        """Wait until all jobs ended; each once, and with the picture of its last attempt."""
        deadline = time.monotonic() + _PATIENCE
        while self._waiting() > 0:
            assert daemon.process.poll() is None, f"the daemon ended:\n{daemon.log_text()[-5000:]}"
            assert time.monotonic() < deadline, (
                f"{self._waiting()} wait:\n{daemon.log_text()[-5000:]}"
            )
            self._tend()
            time.sleep(0.1)
        self._each_once()
        self._none_superseded()

    def _each_once(self) -> None:
        done: Counter[str] = Counter()
        for path in ends(self._root):
            record = decode(path.read_bytes())
            assert isinstance(record, Result), path.read_text()
            done[source_digest(self._root, str(path), record)] += 1
        wanted = {digest: self._stream.several.get(digest, 1) for digest in self._stream.dropped}
        assert wanted == done

    def _none_superseded(self) -> None:
        """No picture is one that was begun before its job was given to another attempt."""
        begun = {}
        for line in self._ledger.read_text().splitlines():
            made = json.loads(line)
            begun[made["mark"]] = made["at"]
        lost: dict[str, float] = {}
        for line in (self._root.logs / "fluxdrop.log").read_text().splitlines():
            said = json.loads(line)
            if said["event"] == "a host was lost over a job":
                lost[said["job"]] = datetime.fromisoformat(said["timestamp"]).timestamp()
        for path in ends(self._root):
            record = decode(path.read_bytes())
            if isinstance(record, Result) and record.job_id in lost:
                mark = mark_of(self._root.path / record.image.file)
                assert begun[mark] > lost[record.job_id], f"{path} is of a superseded attempt"


def mark_of(picture: Path) -> str:
    """Which generation made *picture*."""
    with Image.open(picture) as image:
        return np.asarray(image)[0, :8].tobytes().hex()


@contextmanager
def tortured_cluster(folder: Path) -> Iterator[tuple[Cluster, Path]]:
    """A station with two hosts whose pictures take the time that their prompts say; and the ledger of those."""
    ledger = folder / "ledger"
    ledger.touch()
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join(filter(None, [str(TIMED_PIPELINE), os.environ.get("PYTHONPATH")]))
        patch.setenv("PYTHONPATH", path)
        patch.setenv(_LEDGER, str(ledger))
        with hosts.cluster(folder, 2) as made:
            yield made, ledger


def torture(
    folder: Path, chosen: Sequence[str], seed: str, on_event: Callable[[str], None]
) -> None:
    """Go through the events *chosen*, some in each root."""
    rng = random.Random(f"{seed}-cluster")
    with tortured_cluster(folder) as (cluster, ledger):
        for first in range(0, len(chosen), _EVENTS_A_ROOT):
            root = Root(folder / f"root-{first}")
            part = chosen[first : first + _EVENTS_A_ROOT]
            ClusterTorture(cluster, root, ledger, rng).run(part, on_event)


def main() -> None:
    """`make torture CLUSTER=`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeats an earlier run")
    arguments = parser.parse_args()
    if reason := hosts.missing():
        sys.exit(f"there can be no cluster here: {reason}")
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    chosen = events(arguments.events, random.Random(arguments.seed))
    print(f"{len(chosen)} events with --seed {arguments.seed}", flush=True)
    survived: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(disable=not sys.stderr.isatty()) as bar,
    ):
        task = bar.add_task("events", total=len(chosen))

        def on_event(event: str) -> None:
            survived[event] += 1
            bar.advance(task)
            if not sys.stderr.isatty():
                print(time.strftime("%T"), survived.total(), event, flush=True)

        torture(Path(folder), chosen, arguments.seed, on_event)
    print(f"survived {survived.total()} events, nothing lost or twice: {dict(survived)}")


if __name__ == "__main__":
    main()
