"""Daemons killed with SIGKILL again and again, at every failpoint and at random times, under a
stream of files; `python tests/support/torture.py --help` runs it for as long as one likes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.progress import Progress

from fluxdrop.errors import FluxdropError
from fluxdrop.failpoints import POINTS
from fluxdrop.files.layout import Root, holder
from fluxdrop.jobs.crash_suspects import MAX_DEATHS, count_deaths, deaths
from fluxdrop.jobs.store import Store
from fluxdrop.requests.messages import ModelRequest, ask_and_wait
from fluxdrop.requests.replay import plan_replay, request_replay
from support.audit import audit
from support.daemons import PATIENCE, Daemon, started
from support.needs import GENERATES, JULIA
from support.stream import Stream

_PR_SET_CHILD_SUBREAPER = 36

OF_GENERATION = tuple(point for point in POINTS if point.startswith("generation-"))
OF_OWN_KIND = {"generation-divided": "several", "generation-seeded": "seedless"}
OF_CLUSTERS = ("dispatched", "answer-received", "fence-passed")
OF_COPIES = ("copy-written",)
OF_REQUESTS = ("request-read", "request-taken", "model-swapped", "model-chosen", "request-answered")
OF_REPLAYS = ("replay-made", "replay-renamed")
OF_CONFLICTS = ("names-taken-back", "plan-void")
OF_JULIA = ("job-in-index", "prediction-begun", "prediction-ended", "name-given", "model-swapped")
# A job is past its dangers there, and not yet so far that another one's end is met first.
AFTER_DANGER = ("record-written", "files-synced", "plan-written", "plans-synced")
# Passed several times in a daemon's life, mostly, so that later passings are tried too.
OFTEN = {"index-written": 6, "index-committed": 6, "name-given": 4, "file-written": 2}
LONG_PATIENCE = 10 * PATIENCE
# A root's audit takes time, and so does whatever reads a folder that grew.
MAX_KILLS = 90


@dataclass(frozen=True)
class Campaign:
    """A root, and the kills that its daemons meet; with *copies*, no result can be linked."""

    name: str
    engine: str
    points: Sequence[str]
    kills: int
    kinds: tuple[str, ...] = ("png", "png", "png", "photo", "bad")
    copies: bool = False


def campaigns(kills: int, julia: bool, generation: bool, copies: bool) -> list[Campaign]:
    """At least *kills* kills, most of them where they cost least; every point at least once."""
    apart = {*OF_GENERATION, *OF_CLUSTERS, *OF_COPIES}
    common = [point for point in POINTS if point not in apart]
    made = []
    if generation:
        share = max(len(OF_GENERATION) + 1, kills // 60)
        made.append(
            Campaign("prompts", "onnxruntime", OF_GENERATION, share, ("prompt", "several", "png"))
        )
    if julia:
        made.append(Campaign("julia", "julia", OF_JULIA, max(len(OF_JULIA) + 1, kills // 60)))
    rest = max(0, kills - sum(campaign.kills for campaign in made))
    if copies:
        points = [*common, *OF_COPIES]
        made.append(
            Campaign("copies", "onnxruntime", points, max(len(points), rest // 3), copies=True)
        )
        rest -= made[-1].kills
    roots = max(1, rest // MAX_KILLS)
    for number in range(1, roots + 1):
        share = max(len(common), -(-rest // roots))
        made.append(Campaign(f"links-{number}", "onnxruntime", common, share))
    return made


class Torture:
    """Carries out *campaign* in *folder*; what its daemons' results say, `run` asserts."""

    def __init__(self, campaign: Campaign, folder: Path, seed: str) -> None:
        self.campaign = campaign
        self._rng = random.Random(f"{seed}-{campaign.name}")
        self.root = Root(folder / campaign.name)
        if campaign.copies:
            self.root.path.mkdir()
            self._elsewhere = tempfile.TemporaryDirectory(dir="/dev/shm")
            self.root.outputs.symlink_to(self._elsewhere.name)
        self.root.create()
        self._stream = Stream(self.root, self._rng)
        self._replays: dict[str, str] = {}
        self._strangers: dict[str, bytes] = {}
        self._settings = {
            "engine": campaign.engine,
            "julia_backend": "plain",
            "settle_seconds": 0.1,
            "incomplete_seconds": 0.3,
            "batch_size": 4,
            "results_csv": "true",
        }
        self.reached: set[str] = set()
        self.kills = 0

    def run(self, on_kill: Callable[[], None]) -> None:
        """Kill, then let a last daemon finish, and audit the root."""
        self._feed(4)
        self._finish()
        todo = deque(self._rng.sample(self.campaign.points, len(self.campaign.points)))
        while todo or self.kills < self.campaign.kills:
            before = self.kills
            self._kill_once(todo)
            for _ in range(self.kills - before):
                on_kill()
        assert self.reached >= set(self.campaign.points)
        self._finish()
        audit(self.root, self._stream.dropped, self._replays, self._strangers, self._stream.several)
        if self.campaign.copies:
            self._elsewhere.cleanup()

    def _kill_once(self, todo: deque[str]) -> None:
        if self._most_deaths() >= MAX_DEATHS - 1:
            # One more in the same place, and the job would be set aside, as it should be.
            self._kill_at(self._rng.choice(AFTER_DANGER))
        elif todo:
            self._kill_at(todo.popleft())
        elif self._rng.random() < 0.5 or not self.campaign.points:
            self._kill_at_random()
        else:
            self._kill_at(self._rng.choice(self.campaign.points))

    def _kill_at(self, point: str) -> None:
        self._feed(2 if self._stream.waiting < 6 else 0)
        self._drop_for(point)
        if point in OF_REQUESTS:
            self._kill_over_a_request(point)
            return
        if point in OF_CONFLICTS:
            self._make_conflict()
        if point in OF_REPLAYS:
            self._replay()
        self._kill_at_passing(point, self._rng.randint(1, OFTEN.get(point, 1)))
        self.reached.add(point)

    def _kill_at_passing(self, point: str, number: int) -> None:
        # Jobs that are done together pass a point once; how many are is left to chance.
        failpoint = f"{point}:{number}"
        if number > 1:
            with started(self.root, "--once", failpoint=failpoint, **self._settings) as daemon:
                if daemon.process.wait(LONG_PATIENCE) not in (0, 1):
                    return self._expect_kill(daemon, failpoint)
            self._drop_for(point)
        return self._killed_by(point)

    def _drop_for(self, point: str) -> None:
        """Drop a file that passes *point*: what else waits may be no such file."""
        kind = "prompt" if point in OF_GENERATION else "png"
        self._stream.drop((OF_OWN_KIND.get(point, kind),))

    def _killed_by(self, failpoint: str) -> None:
        with started(self.root, "--once", failpoint=failpoint, **self._settings) as daemon:
            self._expect_kill(daemon, failpoint)

    def _expect_kill(self, daemon: Daemon, failpoint: str) -> None:
        code = daemon.process.wait(LONG_PATIENCE)
        assert -signal.SIGKILL == code, f"{code}, not killed at {failpoint}:\n{self._stderr()}"
        self.kills += 1

    def _kill_over_a_request(self, point: str) -> None:
        with started(self.root, failpoint=point, **self._settings) as daemon:
            self._wait_for_lock(daemon)
            with contextlib.suppress(FluxdropError):
                ask_and_wait(self.root, ModelRequest("round-or-angular"), lambda: None)
            self._expect_kill(daemon, point)
        self.reached.add(point)

    def _make_conflict(self) -> None:
        """Let a stranger's file take a name that a plan has decided on, before it is given."""
        self._killed_by("plans-synced")
        decided = json.loads(self.root.plans.read_bytes().splitlines()[0])
        target = decided["plan"]["links"][-1][1]
        path = self.root.path / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"somebody else's")
        self._strangers[target] = b"somebody else's"

    def _kill_at_random(self) -> None:
        with started(self.root, **self._settings) as daemon:
            if self._rng.random() < 0.8:
                self._wait_for_lock(daemon)
            until = time.monotonic() + self._rng.uniform(0, 0.5)
            while time.monotonic() < until:
                self._feed(1)
                time.sleep(0.05)
            assert daemon.process.poll() is None, self._stderr()
            daemon.process.kill()
            daemon.process.wait()
        self.kills += 1

    def _feed(self, count: int) -> None:
        for _ in range(count):
            self._stream.drop(self.campaign.kinds)
        if self._rng.random() < 0.1:
            self._replay()

    def _replay(self) -> None:
        with contextlib.closing(Store(self.root.database, read_only=True)) as store:
            ended = store.latest("done", 10) + store.latest("failed", 10)
        if ended:
            row = self._rng.choice(ended)
            self._replays[request_replay(self.root, plan_replay(self.root, row))] = row.id

    def _finish(self) -> None:
        with started(self.root, "--once", **self._settings) as daemon:
            assert daemon.process.wait(LONG_PATIENCE) in (0, 1), self._stderr()

    def _wait_for_lock(self, daemon: Daemon) -> None:
        daemon.wait_until(lambda: holder(self.root) == daemon.process.pid, "lock")

    def _most_deaths(self) -> int:
        # As the next start would.
        count_deaths(self.root)
        found = [deaths(folder) for folder in self.root.work.iterdir()]
        return max((died.deaths for died in found if died), default=0)

    def _stderr(self) -> str:
        return (self.root.path / "stderr.log").read_text()[-5000:]


@contextlib.contextmanager
def no_process_left() -> Iterator[None]:
    """Assert that whatever the body's processes started ended with them.

    On Linux this process becomes the parent of every process below it whose own parent died, so
    that none is lost from sight; prctl(2).
    """
    before = set(psutil.Process().children())
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
        _gone, alive = psutil.wait_procs(set(psutil.Process().children()) - before, timeout=30)
        assert [] == [process.cmdline() for process in alive]
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def torture(
    chosen: Sequence[Campaign], folder: Path, seed: str, on_kill: Callable[[], None]
) -> list[Torture]:
    """Carry out the campaigns *chosen*, two at a time."""
    tortures = [Torture(campaign, folder, seed) for campaign in chosen]
    with no_process_left(), ThreadPoolExecutor(max_workers=2) as threads:
        for future in [threads.submit(one.run, on_kill) for one in tortures]:
            future.result()
    return tortures


def main() -> None:
    """`make torture`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeats an earlier run")
    arguments = parser.parse_args()
    chosen = campaigns(arguments.kills, **what_is_here())
    total = sum(campaign.kills for campaign in chosen)
    print(f"{total} kills with --seed {arguments.seed}, on: {', '.join(c.name for c in chosen)}")
    with tempfile.TemporaryDirectory() as folder, Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("kills", total=total)
        done = torture(chosen, Path(folder), arguments.seed, lambda: bar.advance(task))
    print(f"survived {sum(one.kills for one in done)} kills; every file has one result")


def what_is_here() -> dict[str, bool]:
    """Which campaigns this machine can carry out."""
    return {
        "julia": JULIA is not None,
        "generation": GENERATES,
        "copies": os.access("/dev/shm", os.W_OK),
    }


if __name__ == "__main__":
    main()
