"""The recipes in docs/models.md work as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import known_bundles, load_bundle
from fluxdrop.provision import julia_command
from support import pages
from support.daemons import PATIENCE, environment
from support.folders import linear_network
from support.needs import JULIA, missing_in_julia

pytestmark = [pytest.mark.slow, pytest.mark.system]

PAGE = (pages.DOCS / "models.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## (From .*?)\n(.*?)(?=^## )", PAGE))
TREES = ["oak", "maple", "birch"]
EXPECTED: dict[str, tuple[list[str], str]] = {
    "From Hugging Face": (TREES, "logits"),
    "From timm": (TREES, "logits"),
    "From PyTorch and torchvision": (TREES, "logits"),
    "From ultralytics": (["cat", "dog"], "softmax"),
    "From Keras": (["line", "arc", "dot"], "softmax"),
    "From Custom Vision": (["cat", "dog"], "softmax"),
    "From PaddleOCR": (["0", "180"], "softmax"),
    "From scikit-learn": ([str(digit) for digit in range(10)], "softmax"),
}
"""By section: the labels and the kind of output of the model that it adds."""


def ending_in_softmax(size: int | str, **metadata: str) -> onnx.ModelProto:
    """A network of two labels with a softmax, and *metadata*."""
    model = linear_network(size, 2)
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["y"]))
    helper.set_model_props(model, metadata)
    return model


def ultralytics(folder: Path) -> None:
    """best.onnx as ultralytics writes it."""
    names = "{0: 'cat', 1: 'dog'}"
    model = ending_in_softmax(64, names=names, imgsz="[64, 64]", task="classify")
    onnx.save(model, folder / "best.onnx")


def custom_vision(folder: Path) -> None:
    """The folder of an export of Custom Vision."""
    (folder / "customvision").mkdir()
    metadata = {"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "Normalized_0_1"}
    onnx.save(ending_in_softmax(64, **metadata), folder / "customvision" / "model.onnx")
    (folder / "customvision" / "labels.txt").write_text("cat\ndog")


def paddle(folder: Path) -> None:
    """A classifier of the text direction, with its labels as PaddleOCR's converters write them."""
    onnx.save(ending_in_softmax("side", character="0\n180"), folder / "direction.onnx")


MADE: dict[str, Callable[[Path], None]] = {
    "From ultralytics": ultralytics,
    "From Custom Vision": custom_vision,
    "From PaddleOCR": paddle,
}
"""By section: what makes the files that another tool writes."""


def run(folder: Path, *command: str, **env: Any) -> None:
    """Run *command* in *folder*; fails unless it worked."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert 0 == ended.returncode, ended.stdout + ended.stderr


JULIA_EXPECTED: dict[str, tuple[list[str], str]] = {
    "From Flux": (TREES, "softmax"),
    "From Metalhead": (TREES, "logits"),
}
"""The same of the sections in Julia."""


def blocks(section: str, language: str) -> list[str]:
    """The code in *language* of a section."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", SECTIONS[section])


def add_by(folder: Path, root: Root, section: str, engine: str) -> tuple[list[str], str]:
    """Run the commands of a section in *folder*; the labels and the kind of the model that is then in *root*."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "fluxdrop").write_text(f'#!/bin/sh\nexec {sys.executable} -m fluxdrop "$@"\n')
    (programs / "fluxdrop").chmod(0o755)
    env = environment(engine=engine)
    env |= {"PATH": f"{programs}:{os.environ['PATH']}", "FLUXDROP_ROOT": str(root.path)}
    run(folder, "bash", "-euc", "\n".join(blocks(section, "sh")), **env)
    (name,) = known_bundles(root.models).keys() - known_bundles().keys()
    spec = load_bundle(name, root.models).spec
    return spec.labels, spec.output


@pytest.mark.parametrize("section", EXPECTED)
def test_recipe(root: Root, tmp_path: Path, section: str) -> None:
    """A recipe's Python and commands, run one after the other, add a model with the right labels and kind."""
    python = "\n".join(blocks(section, "python"))
    packages = re.findall(r"(?m)^(?:import|from) (\w+)", python)
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if section in MADE:
        MADE[section](tmp_path)
    if python:
        run(tmp_path, sys.executable, "-W", "ignore", "-c", python, **environment())

    assert EXPECTED[section] == add_by(tmp_path, root, section, "onnxruntime")


@pytest.mark.parametrize("section", JULIA_EXPECTED)
def test_julia_recipe(root: Root, tmp_path: Path, section: str) -> None:
    """A recipe's flux_model.jl, the session that saves its weights and the command add a model that runs on Flux."""
    model, session = blocks(section, "julia")
    if lacking := missing_in_julia(*re.findall(r"\w+", model.splitlines()[0])[1:]):
        pytest.skip(lacking)
    (folder,) = set(re.findall(r"[\w-]+(?=/)", session))
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "flux_model.jl").write_text(model)
    assert JULIA is not None
    command, env = julia_command(JULIA)
    run(tmp_path, *command, "-e", session, **env)

    assert JULIA_EXPECTED[section] == add_by(tmp_path, root, section, "julia")


def test_all_recipes() -> None:
    """Every recipe of the page is run."""
    assert set(SECTIONS) == {*EXPECTED, *JULIA_EXPECTED}
