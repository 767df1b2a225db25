"""A process of another user who may write one folder of the root tries every trick, for a while."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from fluxdrop.files import durable
from fluxdrop.files.folders import files_below
from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import Store
from support import attack
from support.audit import LASTING
from support.daemons import PATIENCE, Daemon, serving

PYTHON = "/usr/bin/python3"
STRANGER = 65534
SECONDS = float(os.environ.get("ATTACK_SECONDS", "10"))
SECRET = b"what nobody but the owner may read"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(not os.access(PYTHON, os.X_OK), reason=f"there is no {PYTHON}"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may pass through, as nobody but its owner may pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in folder.iterdir():
            # TemporaryDirectory cannot remove folders as deep as these.
            durable.remove_tree(path)


def secrets(folder: Path, png: bytes) -> None:
    """What a stranger would like to read or to change."""
    (folder / "sub").mkdir(parents=True)
    for name in ("secret.png", "sub/secret.png", "0.png", "secret.txt", "x.json", "20260101.webp"):
        (folder / name).write_bytes(png + SECRET if name.endswith(".png") else SECRET)
        (folder / name).chmod(0o600)
    # Whole, so that a daemon that is led here takes it.
    (folder / "0.png").write_bytes(png)


def seen(folder: Path) -> dict[str, tuple[int, int, int, int, int, str]]:
    """All that *folder* holds, with what can be told from outside."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        facts = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (
            facts.st_mode,
            facts.st_uid,
            facts.st_nlink,
            facts.st_ino,
            facts.st_mtime_ns,
            digest,
        )
    return found


def state_of(root: Root, source: str) -> str | None:
    """How the job of *source* stands, by the index: results may be spoilt."""
    with closing(Store(root.database, read_only=True)) as store:
        rows = store._db.execute("SELECT state FROM jobs WHERE source = ?", [source]).fetchall()
    return rows[-1][0] if rows else None


def serve_one(daemon: Daemon, name: str, png: bytes) -> None:
    """Drop a picture and wait until it is done, whatever goes on around it."""
    part = daemon.root.path / "part"
    part.write_bytes(png)
    part.rename(daemon.root.inbox / name)
    daemon.wait_until(lambda: state_of(daemon.root, name) == "done", f"{name} is done")


def serve(daemon: Daemon, number: int, png: bytes) -> None:
    """Drop files whose results go to each kind of folder, and wait until each has come to its end."""
    wanted = {f"good-{number}.png": "done", f"sub/good-{number}.png": "done"}
    wanted |= {f"bad-{number}.png": "failed", f"sub/bad-{number}.png": "failed"}
    (daemon.root.inbox / "sub").mkdir(exist_ok=True)
    for name, state in wanted.items():
        part = daemon.root.path / "part"
        part.write_bytes(png if state == "done" else b"no picture")
        part.rename(daemon.root.inbox / name)
    for name, state in wanted.items():
        is_so = partial(lambda name, state: state_of(daemon.root, name) == state, name, state)
        daemon.wait_until(is_so, f"{name} is {state}")


def holds_secret(folder: Path) -> list[Path]:
    """The regular files below *folder* in which the secret is."""
    found = []
    for path in (folder / name for name in files_below(folder)):
        is_small = path.is_file() and not path.is_symlink() and path.lstat().st_size < 10**7
        if is_small and SECRET in path.read_bytes():
            found.append(path)
    return found


@contextmanager
def attacking(where: str, *places: Path) -> Iterator[subprocess.Popen[str]]:
    """The attack as another user; ended in any case, and what the daemon said is printed."""
    process = subprocess.Popen(
        [PYTHON, places[-1] / "attack.py", where, *places, str(SECONDS)],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        print((places[0].parent / "stderr.log").read_text()[-10_000:])


@pytest.mark.parametrize("where", ["inbox", "outputs"])
def test_attack(place: Path, png: bytes, where: str) -> None:
    """Whoever may write only inbox/, or only outputs/, changes and reads nothing outside the root and
    nothing of the root but that folder and its results; none of their code runs, the daemon serves
    others meanwhile, stays alive, and comes to rest afterwards.
    """
    root, victim, attic = Root(place / "root"), place / "victim", place / "attic"
    root.create()
    (root.path / "fluxdrop.toml").write_text("scan_seconds = 1\n")
    secrets(victim, png)
    attic.mkdir()
    (attic / "small.png").write_bytes(png)
    shutil.copyfile(attack.__file__, attic / "attack.py")
    folder = root.path / where
    for path in (attic, folder):
        os.chown(path, STRANGER, STRANGER)
    before = seen(victim), (root.path / "fluxdrop.toml").read_bytes()

    with serving(root, settle_seconds=0.1, log_level="error") as daemon:
        serve_one(daemon, "good-first.png", png)
        served = 0
        with attacking(where, folder, victim, attic) as attacker:
            while attacker.poll() is None:
                serve(daemon, served, png)
                served += 1
            _, complaints = attacker.communicate(timeout=PATIENCE)
        for path in root.inbox.iterdir():
            durable.remove_tree(path) if is_folder(path) else path.unlink(missing_ok=True)
        serve_one(daemon, "good-last.png", png)
        daemon.wait_until(lambda: [] == list(root.work.iterdir()), "nothing is in hand")
        assert 0 == daemon.stop()

    assert (0, "") == (attacker.returncode, complaints)
    assert served
    assert before == (seen(victim), (root.path / "fluxdrop.toml").read_bytes())
    assert not (attic / attack.CANARY).exists()
    assert [] == holds_secret(root.path)
    assert {path.name for path in root.state.iterdir()} <= LASTING
    expected = {".fluxdrop", "inbox", "outputs", "generated_images", "preprocessed_images"}
    assert expected | {"fluxdrop.toml", "stderr.log"} == {path.name for path in root.path.iterdir()}


def is_folder(path: Path) -> bool:
    """Whether *path* is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()
