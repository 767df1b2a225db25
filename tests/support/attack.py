"""A stranger who may write one folder of a root and tries all that can be done with that.

`python3 attack.py inbox|outputs FOLDER VICTIM ATTIC SECONDS` needs nothing but the standard library, as
it runs as a user who may not read the tests' environment. FOLDER is what may be written, VICTIM a
folder outside the root, ATTIC one of the stranger's own on the same filesystem, with a picture
`small.png` in it. What is refused is passed over; the exit code is 0 unless the script is wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

SPARSE = 1 << 40
MANY = 100_000
DEEP = 1500
BURST_SECONDS = 0.3
PROCESSES = 3
CANARY = "canary"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_exchange = ctypes.CDLL(None).renameat2


class Stranger:
    """One process of the attack; every method that `tricks` names does one trick for a moment."""

    def __init__(self, folder: Path, victim: Path, attic: Path, seed: int) -> None:
        self.folder = folder
        self.victim = victim
        self.attic = attic
        self.number = seed
        self.chance = random.Random(seed)
        self.picture = (attic / "small.png").read_bytes()

    def new(self, suffix: str = "") -> str:
        """A name that this attack had not yet."""
        self.number += PROCESSES
        return f"x{self.number}{suffix}"

    def burst(self) -> Iterator[None]:
        """Again and again, for a moment."""
        until = time.monotonic() + BURST_SECONDS
        while time.monotonic() < until:
            yield

    def exchange(self, one: Path, other: Path) -> None:
        """Each gets the other's name, in one step."""
        _exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)

    def link(self, target: Path) -> Path:
        """A new symlink to *target*."""
        made = self.folder / f".{self.new()}.part"
        made.symlink_to(target)
        return made

    def swap(self, path: Path, target: Path) -> None:
        """Exchange *path* for a symlink to *target* and back, as fast as can be."""
        link = self.link(target)
        for _ in self.burst():
            self.exchange(path, link)
        with suppress(OSError):
            if path.is_symlink():
                self.exchange(path, link)
            link.unlink()

    # Both folders.

    def hard_links(self) -> None:
        """Other people's files and one's own, under names that are taken."""
        for top in (self.victim, self.folder.parent):
            for current, _folders, names in os.walk(top):
                for name in names[:20]:
                    with suppress(OSError):
                        os.link(Path(current, name), self.folder / self.new(Path(name).suffix))

    def sparse(self) -> None:
        """Files of a terabyte."""
        for suffix in (".png", ".txt", ".jpg", ".webp", ".mp4", ".json"):
            part = self.folder / f".{self.new()}.part"
            part.touch()
            os.truncate(part, SPARSE)
            part.rename(self.folder / self.new(suffix))

    def many(self) -> None:
        """A hundred thousand names, which never become whole."""
        folder = self.folder / "many"
        folder.mkdir(exist_ok=True)
        if not (folder / f"{MANY - 1}.png").exists():
            for number in range(MANY):
                os.close(os.open(f"{folder}/{number}.png", os.O_CREAT | os.O_WRONLY))
        # Another trick may have moved the deep folders here.
        with suppress(RecursionError, OSError):
            shutil.rmtree(folder)

    def irregular(self) -> None:
        """FIFOs, sockets and links with names that are taken."""
        for suffix in (".png", ".txt", ".json"):
            os.mkfifo(self.folder / self.new(suffix))
            (self.folder / self.new(suffix)).symlink_to(self.victim / "secret.png")
            with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
                server.bind(str(self.folder / self.new(suffix)))

    def deep(self) -> None:
        """Folders in folders, deeper than a path can name."""
        fd = os.open(self.folder, os.O_RDONLY)
        for _ in range(DEEP):
            with suppress(FileExistsError):
                os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        for name in ("deep.png", "deep.json"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)

    def odd_names(self) -> None:
        """Names of any bytes, and those that a program could take for something else."""
        odd = [
            b"-rf.png",
            b"..png",
            b"\x1b[2J.png",
            b"a\nb.png",
            b"%2F..%2F..%2Fx.png",
            b"input=x.png",
        ]
        odd += [b"failed", b"index.html", b"...", b"con.txt", b"lock", b"~.png", b"\\..\\x.png"]
        odd += [
            self.chance.randbytes(20).replace(b"/", b"_").replace(b"\0", b"_") for _ in range(20)
        ]
        for name in odd:
            with suppress(OSError):
                (self.folder / os.fsdecode(name)).write_bytes(self.picture)

    def forged(self) -> None:
        """Requests, options of jobs, settings and a model with code, wherever something can be written."""
        root = self.folder.parent
        code = f'build_model() = (touch("{self.attic}/{CANARY}"); x -> x)\ntouch("{self.attic}/{CANARY}")\n'
        for place in (self.folder, root):
            for name, text in (
                (".m/flux_model.jl", code),
                (".m/model.toml", 'labels = ["a", "b"]\n[input]\nsize = [64, 64]\n'),
                ("model/flux_model.jl", code),
                ("fluxdrop.toml", f'model = "{self.folder}/.m"\nengine = "julia"\n'),
                (".fluxdrop/model", f"{self.folder}/.m\n"),
                (".fluxdrop/requests/x.request.json/y", "{}"),
                (".fluxdrop/requests/a.request.json", json.dumps({"type": "model", "model": ".m"})),
                (".fluxdrop/requests/20260101T000000-00000000/input=x.png", "x"),
                (
                    ".fluxdrop/requests/20260101T000000-00000000/options.json",
                    json.dumps({"model": f"{self.folder}/.m"}),
                ),
                ("options.json", json.dumps({"model": f"{self.folder}/.m"})),
                ("m.txt", f"a cat\nSteps: 1, Seed: 1, Model: {self.folder}/.m, Size: 8192x8192"),
                ("all.txt", "\n---\n".join(["a cat\nSteps: 1000, Batch size: 100"] * 900)),
            ):
                with suppress(OSError):
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_text(text)

    # The inbox.

    def swapped_folders(self) -> None:
        """A folder into which pictures come, exchanged for a link to other people's of the same names."""
        folder = self.folder / self.new() / "b"
        folder.mkdir(parents=True)
        link = self.link(self.victim)
        fd = os.open(folder, os.O_RDONLY)
        for _ in self.burst():
            for name in ("0.png", "secret.png", "secret.txt"):
                with suppress(OSError):
                    written = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=fd)
                    os.write(written, self.picture)
                    os.close(written)
            for _ in range(self.chance.randrange(1, 2000)):
                self.exchange(folder, link)
        os.close(fd)

    def swapped_files(self) -> None:
        """A picture, exchanged for a link to another's, for a FIFO, for a folder."""
        for target in ("secret.png", "secret.txt", "missing.png"):
            path = self.folder / self.new(".png")
            path.write_bytes(self.picture)
            self.swap(path, self.victim / target)
        path, fifo = self.folder / self.new(".png"), self.folder / f".{self.new()}.part"
        path.write_bytes(self.picture)
        os.mkfifo(fifo)
        for _ in self.burst():
            self.exchange(path, fifo)

    def moved_folders(self) -> None:
        """A folder that goes out of the inbox and comes back."""
        folder = self.folder / self.new() / "n"
        folder.mkdir(parents=True)
        for number in range(50):
            (folder / f"{number}.png").write_bytes(self.picture)
        away = self.attic / self.new()
        for _ in self.burst():
            folder.rename(away)
            away.rename(folder)

    def written_on(self) -> None:
        """A file that changes, shrinks and grows after it was taken."""
        fd = os.open(self.folder / self.new(".png"), os.O_CREAT | os.O_RDWR)
        os.write(fd, self.picture)
        for _ in self.burst():
            os.ftruncate(fd, self.chance.randrange(len(self.picture)))
            os.pwrite(fd, self.picture, 0)
        os.close(fd)

    # The outputs.

    def swapped_outputs(self) -> None:
        """The folders that results, failures and the gallery go to, exchanged for links."""
        for name in ("sub", "failed", ".gallery", ".gallery/thumbnails"):
            path = self.folder / name
            with suppress(OSError):
                path.mkdir(exist_ok=True)
                self.swap(path, self.victim)
        with suppress(OSError):
            (self.folder / "failed").rename(self.folder / self.new())
            (self.folder / "failed").symlink_to(self.victim)

    def swapped_temporaries(self) -> None:
        """What is still in the making, exchanged for links."""
        link = self.link(self.victim / "secret.txt")
        for _ in self.burst():
            for path in (*self.folder.glob(".*.tmp"), *self.folder.glob(".gallery/.*.tmp")):
                self.exchange(path, link)

    def doctored(self) -> None:
        """Results with ids that are paths, exchanged for whole ones while they are read."""
        whole = [path for path in self.folder.glob("*.json") if path.is_file()][:5]
        for path in whole:
            record = json.loads(path.read_bytes())
            for job_id in ("../../../x", str(self.victim / "x"), "x" * 10_000, record["job_id"]):
                doctored = {
                    **record,
                    "job_id": job_id,
                    "source": {**record["source"], "file": "../../x"},
                }
                doctored["prompt"] = "x" * 100_000
                part = self.folder / self.new(".json")
                part.write_text(json.dumps(doctored))
                for _ in range(50):
                    self.exchange(path, part)
                part.with_suffix(".png").write_bytes(self.picture)

    def gallery(self) -> None:
        """The gallery's own files, exchanged for what hangs or leads elsewhere."""
        names = [
            "index.html",
            *(f".gallery/{name}" for name in ("summary.js", "00000.js", "0123abcd")),
        ]
        for name in names:
            path = self.folder / name
            made = self.folder / self.new(".js")
            match self.chance.randrange(4):
                case 0:
                    made.symlink_to(self.victim)
                case 1:
                    os.mkfifo(made)
                case 2:
                    made.touch()
                    os.truncate(made, SPARSE)
                case _:
                    made.mkdir()
            with suppress(OSError):
                path.unlink()
            with suppress(OSError):
                made.rename(path)

    def taken_names(self) -> None:
        """The names that the next results would get."""
        for number in range(200):
            for suffix in (".json", ".png"):
                with suppress(OSError):
                    (self.folder / f"good-{number}{suffix}").symlink_to(self.victim / "new")


BOTH = ("hard_links", "irregular", "odd_names", "forged")
ONCE = ("sparse", "deep", "many")
"""What one process does once, as it takes long."""
TRICKS = {
    "inbox": ("swapped_folders", "swapped_files", "moved_folders", "written_on"),
    "outputs": ("swapped_outputs", "swapped_temporaries", "doctored", "gallery", "taken_names"),
}


def attack(where: str, stranger: Stranger, until: float, once: Sequence[str]) -> None:
    """All tricks in turns, in an order of chance."""
    while time.monotonic() < until:
        tricks = [*once, *BOTH, *TRICKS[where] * 3]
        stranger.chance.shuffle(tricks)
        for trick in tricks:
            method: Callable[[], None] = getattr(stranger, trick)
            # The daemon takes files away, and much is forbidden.
            with suppress(OSError, ValueError, KeyError, MemoryError, RecursionError):
                method()
            if time.monotonic() >= until:
                return
        once = ()


def main() -> None:
    where, seconds = sys.argv[1], float(sys.argv[5])
    folder, victim, attic = map(Path, sys.argv[2:5])
    until = time.monotonic() + seconds
    children = []
    for seed in range(PROCESSES):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                attack(
                    where, Stranger(folder, victim, attic, seed), until, ONCE if seed == 0 else ()
                )
                code = 0
            finally:
                if code:
                    sys.excepthook(*sys.exc_info())
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
