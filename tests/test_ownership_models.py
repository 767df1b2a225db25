"""Models that others can change: none is taken from a shared folder, and no code of theirs is run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.ownership import of_code
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.resources import models_folder
from support.daemons import fluxdrop
from support.used_root import NOBODY, QUICK

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
