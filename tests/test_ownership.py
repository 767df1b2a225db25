"""Who may change what the daemon acts on: roots, settings and models that others can write."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLES, files_below, fluxdrop, results, serving
from members import needs_root, umask

from fluxdrop.errors import FluxdropError
from fluxdrop.layout import Root
from fluxdrop.ownership import of_code
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.resources import models_folder

NOBODY = 65534
QUICK = {"engine": "onnxruntime", "settle_seconds": 0.1, "log_level": "error"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """What `used` is a copy of."""
    root = Root(tmp_path_factory.mktemp("template") / "root")
    root.create()
    (root.path / "fluxdrop.toml").write_text("batch_size = 4\n")
    shutil.copytree(models_folder() / "round-or-angular", root.models / "mine")
    assert 0 == fluxdrop("model", "use", "mine", "--root", root.path, **QUICK).returncode
    shutil.copyfile(SAMPLES / "round_ring_01.png", root.inbox / "ring.png")
    assert 0 == fluxdrop("run", "--once", "--root", root.path, **QUICK).returncode
    return root


@pytest.fixture
def used(tmp_path: Path, template: Root) -> Root:
    """A root that has settings, an added model, a model in use and a job that is done."""
    return Root(Path(shutil.copytree(template.path, tmp_path / "root")))


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
    command = refused.stderr.partition("Run: ")[2].partition(". People")[0]
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
    command = refused.stderr.partition("Run: ")[2].partition(". People")[0]
    subprocess.run(command, shell=True, check=True)

    assert (2, True) == (refused.returncode, "chmod -R go-w" in command)
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


CODE = 'touch(joinpath(@__DIR__, "was-run"))\nbuild_model() = x -> x\n'
TOML = 'labels = ["a", "b", "c"]\noutput = "logits"\n[input]\nsize = [4, 2]\n'


def native(folder: Path) -> Path:
    """A bundle of Julia code, readable and writable by its owner."""
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(TOML)
    (folder / "flux_model.jl").write_text(CODE)
    (folder / "weights.bson").write_text("2.5")
    return folder


def onnx(folder: Path) -> Path:
    return Path(shutil.copytree(models_folder() / "round-or-angular", folder))


@pytest.mark.parametrize("make", [native, onnx])
@pytest.mark.parametrize("by", ["fluxdrop.toml", "environment", "model use"])
def test_no_model_of_the_inbox(root: Root, make: Callable[[Path], Path], by: str) -> None:
    """No model is taken from the inbox, whoever names it, and no code there is run."""
    folder = make(root.inbox / ".m")
    if by == "model use":
        done = fluxdrop("model", "use", folder, "--root", root.path)
    elif by == "environment":
        done = fluxdrop("run", "--once", "--root", root.path, model=folder)
    else:
        (root.path / "fluxdrop.toml").write_text(f'model = "{folder}"\n')
        done = fluxdrop("run", "--once", "--root", root.path)

    assert 2 == done.returncode
    reason = "There is no model bundle" if by == "model use" else "where others may write"
    assert reason in done.stderr
    assert not (folder / "was-run").exists()


@pytest.mark.parametrize("place", ["outputs/failed", "generated_images", "preprocessed_images"])
@pytest.mark.parametrize("make", [native, onnx])
def test_no_model_of_a_shared_folder(root: Root, place: str, make: Callable[[Path], Path]) -> None:
    """Nor is one taken from where people find results."""
    folder = make(root.path / place / "m")

    with pytest.raises(FluxdropError, match="where others may write"):
        load_bundle(str(folder), root.models)


@pytest.mark.parametrize("way", ["link", "linked inbox", "another root"])
def test_no_model_of_a_shared_folder_by_a_detour(root: Root, tmp_path: Path, way: str) -> None:
    """Neither is it by a symlink to there, nor where the inbox itself is one, nor from another root."""
    folder = tmp_path / "link"
    if way == "link":
        folder.symlink_to(onnx(root.inbox / ".m"))
    elif way == "linked inbox":
        root.inbox.rmdir()
        root.inbox.symlink_to(tmp_path / "elsewhere")
        folder = onnx(tmp_path / "elsewhere/.m")
    else:
        Root(tmp_path / "second").create()
        folder = onnx(tmp_path / "second/inbox/m")

    with pytest.raises(FluxdropError, match="where others may write"):
        load_bundle(str(folder), root.models)


def spoil_folder(bundle: Path) -> Path:
    bundle.chmod(0o775)
    return bundle


def spoil_weights(bundle: Path) -> Path:
    (bundle / "weights.bson").chmod(0o666)
    return bundle / "weights.bson"


def spoil_parent(bundle: Path) -> Path:
    bundle.parent.chmod(0o777)
    return bundle.parent


def spoil_subfolder(bundle: Path) -> Path:
    (bundle / "src").mkdir()
    (bundle / "src/layers.jl").touch()
    (bundle / "src/layers.jl").chmod(0o662)
    return bundle / "src/layers.jl"


def spoil_by_link(bundle: Path) -> Path:
    elsewhere = bundle.parents[1] / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "layers.jl").touch()
    elsewhere.chmod(0o777)
    (bundle / "layers.jl").symlink_to(elsewhere / "layers.jl")
    return elsewhere


def spoil_owner(bundle: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(bundle / "flux_model.jl", NOBODY, -1)
    return bundle / "flux_model.jl"


SPOILS = [spoil_folder, spoil_weights, spoil_parent, spoil_subfolder, spoil_by_link, spoil_owner]


@pytest.mark.parametrize("spoil", SPOILS)
def test_code_that_others_can_change(tmp_path: Path, spoil: Callable[[Path], Path]) -> None:
    """A native model that others could change or replace, in any file or by any folder on the way, is
    not loaded, and the path that lets them is named; the same model is where only its owner can.
    """
    bundle = native(tmp_path / "models/mine")
    loaded = load_bundle(str(bundle))
    path = spoil(bundle)

    with pytest.raises(FluxdropError, match="is code, and is not run") as caught:
        load_bundle(str(bundle))

    assert "flux" == loaded.kind
    assert f": {path} " in caught.value.message
    assert caught.value.hint.startswith(("Run: chmod go-w", "Run: chown"))


def test_shared_root_runs_no_code_of_others(used: Root) -> None:
    """In a root that is shared as a whole, ONNX models are used, but no code that others can change."""
    native(used.models / "code")
    used.models.chmod(0o777)

    onnx_model = fluxdrop("run", "--once", "--shared-root", "--root", used.path, **QUICK)
    code = fluxdrop("run", "--once", "--shared-root", "--root", used.path, model="code")

    assert (0, 2) == (onnx_model.returncode, code.returncode)
    assert f"is code, and is not run: {used.models} may be written by everybody" in code.stderr


def test_code_below_a_sticky_folder(tmp_path: Path) -> None:
    """A folder of our own below one with the sticky bit, such as /tmp, is as safe as any."""
    tmp_path.chmod(0o1777)
    try:
        assert [] == list(of_code(native(tmp_path / "mine")))
    finally:
        tmp_path.chmod(0o700)


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
