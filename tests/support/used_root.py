"""A root in which a daemon has worked, as tests of ownership want it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fluxdrop.files.layout import Root
from fluxdrop.resources import models_folder
from support.daemons import SAMPLES, fluxdrop

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
