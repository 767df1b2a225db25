"""A stream of files as people drop them, each told from all others by its contents."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from fluxdrop.files.layout import Root
from support.daemons import SAMPLES
from support.pictures import chunk

NAMES = ("cat", "v1.5 dog", "sub/cat", "sub/deeper/a b", "ünï 图", "failed/cat")
PROMPT = "a large red circle on a white background"
SEVERAL = 2


class Stream:
    """Drops files into *root*, and keeps account of them; each one *durably*, or as fast as it can."""

    def __init__(self, root: Root, rng: random.Random, *, durably: bool = False) -> None:
        self._root = root
        self._rng = rng
        self._give = _give_durably if durably else _give
        self._numbers = itertools.count(1)
        self._staging = root.path.parent / f"{root.path.name}-staging"
        self._staging.mkdir()
        self.dropped: dict[str, tuple[str, bool]] = {}
        """By its SHA-256, each file's path below inbox/, and whether it can be done."""
        self.several: dict[str, int] = {}
        """By its SHA-256, how many pictures a file asks for that asks for more than one."""

    def drop(self, kinds: tuple[str, ...]) -> None:
        """Drop one file of one of *kinds*."""
        number = next(self._numbers)
        kind = self._rng.choice(kinds)
        suffix, data, is_good = _MAKERS[kind](number, self._rng)
        digest = hashlib.sha256(data).hexdigest()
        if kind in ("several", "timed-several"):
            self.several[digest] = SEVERAL
        staged = self._staging / str(number)
        staged.write_bytes(data)
        for name in self._names(suffix):
            target = self._root.inbox / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                # The entry is noted first: the daemon may be faster than this process.
                self.dropped[digest] = (name, is_good)
                self._give(staged, target, self._root.inbox)
            except FileExistsError:
                continue
            break
        staged.unlink(missing_ok=True)

    @property
    def waiting(self) -> int:
        """How many files lie in the inbox."""
        return sum(path.is_file() for path in self._root.inbox.rglob("*"))

    def _names(self, suffix: str) -> Iterator[str]:
        name = self._rng.choice(NAMES)
        yield f"{name}{suffix}"
        for number in itertools.count(1):
            yield f"{name} ({number}){suffix}"


def _give(staged: Path, target: Path, _inbox: Path) -> None:
    target.hardlink_to(staged)


def _give_durably(staged: Path, target: Path, inbox: Path) -> None:
    """Return when no power cut can take *target* away."""
    # Nobody else makes files there.
    if target.exists():
        raise FileExistsError(target)
    _sync(staged)
    staged.rename(target)
    for folder in (target.parent, *target.parent.parents):
        _sync(folder)
        if folder == inbox:
            break


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _png(number: int, rng: random.Random) -> tuple[str, bytes, bool]:
    data = rng.choice(sorted(SAMPLES.glob("*.png"))).read_bytes()
    text = chunk(b"tEXt", b"Comment\0%d" % number)
    return ".png", data[:-12] + text + data[-12:], True


def _photo(number: int, rng: random.Random) -> tuple[str, bytes, bool]:
    suffix, kind = rng.choice([(".jpg", "JPEG"), (".webp", "WEBP")])
    exif = Image.Exif()
    exif[0x010E] = str(number)
    buffer = BytesIO()
    with Image.open(rng.choice(sorted(SAMPLES.glob("*.png")))) as image:
        image.convert("RGB").save(buffer, kind, exif=exif)
    return suffix, buffer.getvalue(), True


def _prompt(number: int, _rng: random.Random) -> tuple[str, bytes, bool]:
    return ".txt", f"{PROMPT}\nSteps: 2, Seed: {number}, Size: 64x64\n".encode(), True


def _seedless(number: int, _rng: random.Random) -> tuple[str, bytes, bool]:
    return ".txt", f"{PROMPT} {number}\nSteps: 1, Size: 64x64\n".encode(), True


def _timed(number: int, rng: random.Random) -> tuple[str, bytes, bool]:
    """For the pipeline in tests/timed_pipeline."""
    text = f"{PROMPT} {rng.choice((0.2, 0.5, 1.5))}s nr{number}\nSteps: 5, Size: 64x64\n"
    return ".txt", text.encode(), True


def _timed_several(number: int, rng: random.Random) -> tuple[str, bytes, bool]:
    suffix, data, is_good = _timed(number, rng)
    return suffix, data.replace(b"64x64", b"64x64, Batch size: %d" % SEVERAL), is_good


def _several(number: int, _rng: random.Random) -> tuple[str, bytes, bool]:
    text = f"{PROMPT}\nSteps: 1, Seed: {number}, Size: 64x64, Batch size: {SEVERAL}\n"
    return ".txt", text.encode(), True


def _bad(number: int, rng: random.Random) -> tuple[str, bytes, bool]:
    whole = _png(number, rng)[1]
    header, end = whole[:33], whole[-12:]
    choices = [
        (".png", f"no picture {number}".encode()),
        (".png", whole[: len(whole) - 5]),
        (".png", header + chunk(b"IDAT", b"no zlib %d" % number) + end),
        (".txt", f"Nr. {number}: ein großer Kreis".encode("latin-1")),
        (".pdf", f"%PDF-1.7 {number}".encode()),
    ]
    return (*rng.choice(choices), False)


_MAKERS: dict[str, Callable[[int, random.Random], tuple[str, bytes, bool]]] = {
    "png": _png,
    "photo": _photo,
    "prompt": _prompt,
    "seedless": _seedless,
    "several": _several,
    "timed": _timed,
    "timed-several": _timed_several,
    "bad": _bad,
}
