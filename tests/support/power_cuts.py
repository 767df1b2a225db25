"""Power cuts under a real daemon, on real filesystems; `python tests/support/power_cuts.py --help` runs as
many as one likes.

A btrfs in a file holds the image of a filesystem that is mounted and served. A clone of the image is
what a power cut at that instant leaves of the disk: all that the filesystem had written, in its own
order, and nothing of what it only held in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import secrets
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.progress import Progress

from fluxdrop.files.layout import Root, holder
from fluxdrop.gallery.gallery import page_of
from fluxdrop.jobs.store import Store
from fluxdrop.records.result import Record, decode
from fluxdrop.requests.replay import plan_replay, request_replay
from support.audit import audit, source_digest
from support.daemons import PATIENCE, files_below, started
from support.disk_images import (
    FILESYSTEMS,
    IMAGE_BYTES,
    clone,
    host,
    make_filesystem,
    missing,
    mounted,
    workplace,
)
from support.needs import GENERATES, JULIA
from support.stream import Stream

PICTURES = ("png", "png", "png", "photo", "bad")
PROMPTS = ("prompt", "several", "png")
# A clone has its original's identifier. The kernel mounts no two of them at once, so only one is.
_OPTIONS = {"xfs": ("nouuid",)}
_LIVES_A_DISK = 5
_LONG_PATIENCE = 10 * PATIENCE


@dataclass(frozen=True)
class Life:
    """One daemon's life: what is dropped meanwhile, and how often the power is cut; at most *pause*
    seconds lie between two cuts.
    """

    engine: str
    kinds: tuple[str, ...]
    cuts: int
    pause: float = 1.0


@dataclass(frozen=True)
class Cut:
    """The disk after a power cut, and what was known to be on it: files by their SHA-256 as `Stream`
    has them, replays as `audit` wants them, and the digests of the results that anybody could see."""

    image: Path
    engine: str
    dropped: Mapping[str, tuple[str, bool]]
    replays: Mapping[str, str]
    seen: Mapping[str, bytes]


def lives(cuts: int, *, julia: bool, generation: bool) -> list[Life]:
    """Lives with *cuts* cuts on one filesystem, most of them where they cost least."""
    made = []
    if generation:
        made += _lives(Life("onnxruntime", PROMPTS, 4, pause=4.0), cuts // 6)
    if julia:
        made += _lives(Life("julia", PICTURES, 5), cuts // 6)
    rest = cuts - sum(life.cuts for life in made)
    return _lives(Life("onnxruntime", PICTURES, 5), rest) + made


def _lives(life: Life, cuts: int) -> list[Life]:
    whole, rest = divmod(cuts, life.cuts)
    counts = [life.cuts] * whole + [rest] * (rest > 0)
    return [Life(life.engine, life.kinds, count, life.pause) for count in counts]


class PowerCuts:
    """Cuts the power of daemons on *filesystem*, in images below *host*, a mounted btrfs."""

    def __init__(self, filesystem: str, host: Path, seed: str) -> None:
        self._filesystem = filesystem
        self._folder = host / filesystem
        self._folder.mkdir()
        self._rng = random.Random(f"{seed}-{filesystem}")
        self._image = self._folder / "live.img"
        self._root = Root(self._folder / "live" / "root")
        self._stream: Stream | None = None
        self._replays: dict[str, str] = {}
        self._seen: dict[str, bytes] = {}
        self.cuts = 0
        self.faults: list[str] = []
        """What was wrong after which cut."""

    def run(self, chosen: Sequence[Life], on_cut: Callable[[], None]) -> None:
        """Live, cut, and look at what each cut left. A life goes on from a cut of the one before, so
        that recoveries meet power cuts as well."""
        left = 0
        for life in chosen:
            if left == 0:
                self._make_disk()
                left = _LIVES_A_DISK
            left -= 1
            made = self._live(life)
            successor = self._rng.choice(made)
            clone(successor.image, self._image)
            for cut in made:
                try:
                    found = self._check(cut)
                except OSError as error:
                    # A log that the filesystem cannot read takes all files with it.
                    found = [str(error)]
                cut.image.unlink()
                self.cuts += 1
                self.faults += [f"{self._filesystem}, cut {self.cuts}: {fault}" for fault in found]
                if found:
                    left = 0
                on_cut()
            self._go_on_from(successor)

    def _make_disk(self) -> None:
        self._image.unlink(missing_ok=True)
        with self._image.open("xb") as file:
            file.truncate(IMAGE_BYTES)
        make_filesystem(self._filesystem, self._image)
        with self._mounted(self._image, "live"):
            self._root.path.mkdir()
            self._root.create()
            self._stream = Stream(self._root, self._rng, durably=True)
        self._replays = {}
        self._seen = {}

    def _go_on_from(self, cut: Cut) -> None:
        assert self._stream is not None
        self._stream.dropped = dict(cut.dropped)
        self._replays = dict(cut.replays)
        self._seen = dict(cut.seen)

    def _live(self, life: Life) -> list[Cut]:
        with (
            self._mounted(self._image, "live"),
            started(self._root, **_settings(life.engine)) as daemon,
        ):
            if self._rng.random() < 0.8:
                daemon.wait_until(lambda: holder(self._root) == daemon.process.pid, "lock")
            made = [self._cut(life, f"cut-{number}.img") for number in range(life.cuts)]
            assert daemon.process.poll() is None, _stderr(self._root)
        return made

    def _cut(self, life: Life, name: str) -> Cut:
        """Drop files for a while, and cut the power."""
        assert self._stream is not None
        until = time.monotonic() + self._rng.uniform(0, life.pause)
        # Few files are synced one by one, many together with all of the filesystem.
        for _ in range(self._rng.choice((1, 4, 16)) if life.kinds == PICTURES else 2):
            self._stream.drop(life.kinds)
        if self._rng.random() < 0.3:
            self._replay()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, self._rng.uniform(0, 0.3)))
            self._stream.drop(PICTURES)
        self._look()
        cut = Cut(
            self._folder / name,
            life.engine,
            dict(self._stream.dropped),
            dict(self._replays),
            dict(self._seen),
        )
        clone(self._image, cut.image)
        return cut

    def _replay(self) -> None:
        with contextlib.closing(Store(self._root.database, read_only=True)) as store:
            ended = store.latest("done", 10) + store.latest("failed", 10)
        if ended:
            row = self._rng.choice(ended)
            self._replays[request_replay(self._root, plan_replay(self._root, row))] = row.id

    def _look(self) -> None:
        """See all results, as anybody could."""
        for path in _results(self._root):
            name = str(path.relative_to(self._root.path))
            if name not in self._seen:
                self._seen[name] = _digest(path)

    def _check(self, cut: Cut) -> list[str]:
        """What is wrong after a daemon did all that it found in *cut*, which stays as it is."""
        assert self._stream is not None
        several = self._stream.several
        image = self._folder / "check.img"
        clone(cut.image, image)
        with self._mounted(image, "cut") as folder:
            root = Root(folder / "root")
            with started(root, "--once", **_settings(cut.engine)) as daemon:
                code = daemon.process.wait(_LONG_PATIENCE)
            if code not in (0, 1):
                return [f"run --once ended with {code}: {_stderr(root)}"]
            found = [*_changed(root, cut)]
            lost, twice = _miscounted(root, cut, several)
            found += [f"twice: {name}" for name in twice.values()]
            try:
                audit(root, cut.dropped, cut.replays, {}, several)
            except (AssertionError, OSError, ValueError, msgspec.DecodeError):
                found.append(traceback.format_exc(limit=-2))
        if lost:
            # They may still have lain there before that daemon came.
            with self._mounted(cut.image, "cut") as folder:
                for digest, name in lost.items():
                    places = ", ".join(_places(folder / "root", digest))
                    found.append(f"lost: {name}; just after the cut at {places or 'no place'}")
        return found

    @contextlib.contextmanager
    def _mounted(self, image: Path, name: str) -> Iterator[Path]:
        options = _OPTIONS.get(self._filesystem, ())
        with mounted(image, self._folder / name, *options) as folder:
            yield folder


def _miscounted(
    root: Root, cut: Cut, several: Mapping[str, int]
) -> tuple[dict[str, str], dict[str, str]]:
    """The files, by their SHA-256, and the replays that were lost, and those done more than once."""
    done = Counter(
        source_digest(root, path, record) if record.replay_of is None else record.job_id
        for path, record in _records(root).items()
    )
    wanted = {digest: several.get(digest, 1) for digest in cut.dropped}
    names = {digest: name for digest, (name, _) in cut.dropped.items()}
    names |= {job_id: f"replay {job_id}" for job_id in cut.replays}
    wanted |= dict.fromkeys(cut.replays, 1)
    return (
        {key: names[key] for key, count in wanted.items() if done[key] < count},
        {key: names[key] for key, count in wanted.items() if done[key] > count},
    )


def _places(folder: Path, digest: str) -> list[str]:
    """Where below *folder* the file with the SHA-256 *digest* lies."""
    return [
        str(path.relative_to(folder))
        for path in files_below(folder)
        if path.is_file() and _digest(path).hex() == digest
    ]


def _changed(root: Root, cut: Cut) -> Iterator[str]:
    """The results that could be seen before the cut and cannot be seen now, or are others."""
    for name, digest in cut.seen.items():
        path = root.path / name
        if not path.is_file():
            yield f"gone: {name}"
        elif digest != _digest(path):
            yield f"changed: {name}"


def _records(root: Root) -> dict[str, Record]:
    """By their paths below *root*."""
    return {
        str(path.relative_to(root.path)): decode(path.read_bytes())
        for path in _results(root)
        if path.suffix == ".json"
    }


def _results(root: Root) -> list[Path]:
    """The files in the folders of results, without the gallery's and those in the making."""
    return [
        path
        for folder in (root.generated, root.preprocessed, root.outputs)
        for path in files_below(folder)
        if path != page_of(root) and not path.name.startswith(".")
    ]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _stderr(root: Root) -> str:
    return (root.path / "stderr.log").read_text()[-5000:]


def _settings(engine: str) -> dict[str, object]:
    return {
        "engine": engine,
        "julia_backend": "plain",
        "settle_seconds": 0.1,
        "incomplete_seconds": 0.3,
        "batch_size": 4,
        "results_csv": "true",
    }


def cut_power(
    filesystems: Sequence[str],
    chosen: Sequence[Life],
    seed: str,
    on_cut: Callable[[], None],
) -> list[PowerCuts]:
    """Go through the lives *chosen* on each of *filesystems*, two at a time."""
    with workplace() as folder, host(folder) as place:
        made = [PowerCuts(filesystem, place, seed) for filesystem in filesystems]
        with ThreadPoolExecutor(max_workers=2) as threads:
            for future in [threads.submit(one.run, chosen, on_cut) for one in made]:
                future.result()
    return made


def main() -> None:
    """`make torture CUTS=`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=300, help="on each filesystem")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeats an earlier run")
    parser.add_argument("--filesystems", nargs="+", choices=FILESYSTEMS, default=FILESYSTEMS)
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(f"the power cannot be cut here: {reason}")
    # What is mounted is to be unmounted.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    chosen = lives(arguments.cuts, julia=JULIA is not None, generation=GENERATES)
    total = arguments.cuts * len(arguments.filesystems)
    print(f"{total} power cuts with --seed {arguments.seed}", flush=True)
    with Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("power cuts", total=total)
        done = cut_power(arguments.filesystems, chosen, arguments.seed, lambda: bar.advance(task))
    faults = [fault for one in done for fault in one.faults]
    print(*faults, sep="\n")
    print(f"survived {sum(one.cuts for one in done)} power cuts with {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
