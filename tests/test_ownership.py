"""Who may change what the daemon acts on: roots and settings that others can write."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.resources import models_folder
from support.daemons import files_below, fluxdrop, results, serving
from support.members import needs_root, umask
from support.used_root import NOBODY, QUICK

pytestmark = pytest.mark.slow


def writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def others(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def another(path: Path) -> None:
    os.chown(path, NOBODY, -1)


FAULTS = [
    (".", writable),
    (".", others),
    (".", another),
    ("fluxdrop.toml", writable),
    ("fluxdrop.toml", another),
    (".fluxdrop", writable),
    (".fluxdrop", another),
    (".fluxdrop/model", writable),
    (".fluxdrop/plans.jsonl", others),
    (".fluxdrop/jobs.sqlite3", writable),
    (".fluxdrop/lock", another),
    (".fluxdrop/work", writable),
    (".fluxdrop/requests", others),
    (".fluxdrop/requests", another),
    (".fluxdrop/models/mine", writable),
    (".fluxdrop/models/mine/model.onnx", another),
]


@needs_root
@pytest.mark.parametrize(
    ("name", "spoil"), FAULTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_refused(used: Root, name: str, spoil: Callable[[Path], None]) -> None:
    """A root in which others than its user can write what the daemon acts on is not served: the path
    is named, and after the command that is told it is served.
    """
    path = used.path / name
    spoil(path)

    refused = fluxdrop("run", "--once", "--root", used.path, **QUICK)
    command = refused.stderr.partition("Run: ")[2].partition(". Share")[0]
    subprocess.run(command, shell=True, check=True)
    mended = fluxdrop("run", "--once", "--root", used.path, **QUICK)

    assert (2, 1) == (refused.returncode, len(refused.stderr.strip().splitlines()))
    assert f"{path} " in refused.stderr
    assert 0 == mended.returncode, (command, mended.stderr)


def test_doctor(used: Root) -> None:
    """doctor finds what `run` would refuse, with the command that mends it."""
    writable(used.models)
    found = json.loads(fluxdrop("doctor", "--json", "--root", used.path, **QUICK).stdout)[
        "findings"
    ]

    (finding,) = [finding for finding in found if finding["check"] == "ownership"]
    assert ("broken", f"Run: chmod go-w {used.models}") == (finding["verdict"], finding["remedy"])


@pytest.mark.parametrize("name", ["inbox", "outputs", "generated_images", "preprocessed_images"])
def test_shared_folders(used: Root, name: str) -> None:
    """The folders that people share may be written by anybody."""
    (used.path / name).chmod(0o777)

    assert 0 == fluxdrop("run", "--once", "--root", used.path, **QUICK).returncode


def test_sticky_root(used: Root) -> None:
    """A root folder with the sticky bit, in which nobody can replace another's file, is served."""
    used.path.chmod(0o1777)

    assert 0 == fluxdrop("run", "--once", "--root", used.path, **QUICK).returncode


def test_many_faults(used: Root) -> None:
    """However much is wrong, one command line mends it."""
    for folder in (used.path, used.state, *used.models.rglob("*"), *used.state.iterdir()):
        folder.chmod(folder.stat().st_mode | 0o020)

    refused = fluxdrop("run", "--once", "--root", used.path, **QUICK)
    command = refused.stderr.partition("Run: ")[2].partition(". Share")[0]
    subprocess.run(command, shell=True, check=True)

    assert (2, True) == (refused.returncode, "chmod -R go-w" in command)
    assert re.search(r" The same applies to \d+ more paths in ", refused.stderr)
    assert 0 == fluxdrop("run", "--once", "--root", used.path, **QUICK).returncode


def test_who_may_say_that_the_root_is_shared(used: Root) -> None:
    """The environment may allow a shared root, and a fluxdrop.toml that only its owner can change; one
    that others can change may not.
    """
    toml = used.path / "fluxdrop.toml"
    used.models.chmod(0o777)
    by_environment = fluxdrop("run", "--once", "--root", used.path, shared_root="true", **QUICK)
    toml.write_text("shared_root = true\n")
    by_file = fluxdrop("run", "--once", "--root", used.path, **QUICK)
    toml.chmod(0o666)
    by_anybody = fluxdrop("run", "--once", "--root", used.path, **QUICK)

    assert (0, 0, 2) == (by_environment.returncode, by_file.returncode, by_anybody.returncode)
    assert f"{toml} may be written by everybody (mode 0666)" in by_anybody.stderr


def default_acl(folder: Path, group: int) -> None:
    """`setfacl --default --modify group:GROUP:rwx`, which may not be installed; acl(5)."""
    everybody = 0xFFFFFFFF
    entries = [
        (1, 7, everybody),
        (4, 5, everybody),
        (8, 7, group),
        (0x10, 7, everybody),
        (0x20, 0, everybody),
    ]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_default", value)
    except OSError as error:
        pytest.skip(f"no ACLs on this filesystem: {error}")


def test_default_acl(used: Root) -> None:
    """A default ACL by which others could write what is made there is a fault of the folder."""
    default_acl(used.state, 12345)

    refused = fluxdrop("run", "--once", "--root", used.path, **QUICK)

    assert 2 == refused.returncode
    assert f"{used.state} has a default ACL" in refused.stderr
    assert f"setfacl --remove-default {used.state}" in refused.stderr


def test_what_the_daemon_makes(tmp_path: Path, samples: Path) -> None:
    """Under the widest umask, init, model add, model use, gallery and the daemon make nothing that others could
    write, so that the next start serves it.
    """
    root = Root(tmp_path / "root")
    with umask(0):
        made = [
            fluxdrop("init", root.path),
            fluxdrop(
                "model",
                "add",
                models_folder() / "round-or-angular",
                "--name",
                "mine",
                "--root",
                root.path,
                **QUICK,
            ),
            fluxdrop("model", "use", "mine", "--root", root.path, **QUICK),
        ]
        made.append(fluxdrop("gallery", "--root", root.path))
        for number in range(3):
            shutil.copyfile(samples / "round_ring_01.png", root.inbox / f"{number}.png")
            (root.inbox / f"{number}.jpg").write_bytes(b"no picture")
            made.append(fluxdrop("run", "--once", "--root", root.path, **QUICK))
        with serving(root, **QUICK):
            made.append(fluxdrop("replay", "--all", "--wait", "--root", root.path))

    paths = [root.path, *root.state.rglob("*"), *root.outputs.rglob("*.json")]
    assert [0, 0, 0, 0, 1, 1, 1, 1] == [done.returncode for done in made], made
    assert [] == [path for path in paths if path.stat().st_mode & 0o022]


def test_reload(used: Root, samples: Path) -> None:
    """A reload does not believe settings that others can change; those in use stay."""
    toml = used.path / "fluxdrop.toml"
    with serving(used, **QUICK) as daemon:
        toml.write_text("max_pixels = 1\n")
        toml.chmod(0o666)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until(lambda: "reload refused" in daemon.log_text(), "a refusal")
        shutil.copyfile(samples / "round_circle_01.png", used.inbox / "circle.png")
        daemon.wait_for_ends(2)

    assert {"ring.json", "circle.json"} == set(results(used))


@needs_root
def test_init_for_a_group(tmp_path: Path) -> None:
    """init --group makes a root that its group can read, drop into and leave requests in, and nothing
    else; the daemon of the account that was named serves it.
    """
    root = Root(tmp_path / "root")
    done = fluxdrop("init", root.path, "--user", "nobody", "--group", "nogroup")
    modes = {
        str(path.relative_to(root.path)): oct(path.stat().st_mode & 0o7777)
        for path in (root.path, *root.path.rglob("*"))
    }
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in root.path.rglob("*")}
    unknown = fluxdrop("init", root.path, "--group", "no-such-group")

    assert (0, "") == (done.returncode, done.stderr)
    assert {"inbox": "0o2770", ".fluxdrop/requests": "0o3730"} == {
        name: modes.pop(name) for name in ("inbox", ".fluxdrop/requests")
    }
    assert {"0o2750"} == set(modes.values())
    assert {(NOBODY, NOBODY)} == owners
    assert (2, True) == (unknown.returncode, "no-such-group" in unknown.stderr)


def test_init_tells(tmp_path: Path) -> None:
    """init says of a folder that `run` would refuse that it would."""
    folder = tmp_path / "root"
    folder.mkdir()
    folder.chmod(0o777)
    done = fluxdrop("init", folder)

    assert 0 == done.returncode
    assert f"`fluxdrop run` would not serve it yet. {folder} may be written by" in done.stderr
    assert f"chmod go-w {folder}" in done.stderr
    assert [] == [path for path in files_below(folder) if path.name != ".gitkeep"]
