"""The engine juliacall: what it needs, told before Julia is started, and where that is there, its answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine

BUNDLE = load_bundle("round-or-angular")


def refusal() -> FluxdropError:
    with pytest.raises(FluxdropError) as caught:
        open_engine(config.load(None, {"engine": "juliacall"}), BUNDLE)
    assert "julia" == caught.value.kind
    return caught.value


@pytest.fixture
def julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that makes Julia one of a version, whose project has PythonCall.jl of a version."""
    monkeypatch.delenv("FLUXDROP_JULIA_PROJECT", raising=False)
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_JULIAPKG_PROJECT", str(tmp_path / "project"))

    def make(version: str, pythoncall: str) -> None:
        path = tmp_path / "julia"
        path.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = --version ] && exec echo julia version {version}\n'
            f'[ -n "{pythoncall}" ] && exec echo "fluxdrop-pythoncall|{pythoncall.strip("-")}"\n'
            "echo ERROR: it is broken >&2; exit 1\n"
        )
        path.chmod(0o755)
        monkeypatch.setenv("FLUXDROP_JULIA", str(path))

    return make


@pytest.fixture
def juliacall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed juliacall 0.9.30 that must not be imported."""
    folder = tmp_path / "site"
    metadata = folder / "juliacall-0.9.30.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: juliacall\nVersion: 0.9.30\n")
    (folder / "juliacall.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "juliacall", raising=False)


def test_not_installed(julia: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says what to install."""
    julia("1.10.4", "0.9.30")
    monkeypatch.setitem(sys.modules, "juliacall", None)

    error = refusal()

    assert "The package juliacall is not installed." == error.message
    assert "pip install 'fluxdrop[juliacall]'" in error.hint


@pytest.mark.usefixtures("juliacall")
def test_old_julia(julia: Callable[[str, str], None]) -> None:
    """A Julia that runs workers may be too old for juliacall."""
    julia("1.5.3", "0.9.30")

    assert "juliacall needs Julia 1.10 or newer" in refusal().message


@pytest.mark.usefixtures("juliacall")
def test_no_project(julia: Callable[[str, str], None]) -> None:
    """Where setup never made a project there is no PythonCall.jl to be had; nothing is downloaded."""
    julia("1.10.4", "0.9.30")

    error = refusal()

    assert "There is no Julia project with PythonCall.jl" in error.message
    assert "fluxdrop setup --force" in error.hint


@pytest.mark.usefixtures("juliacall")
@pytest.mark.parametrize(
    ("pythoncall", "words"),
    [
        ("-", "juliacall 0.9.30 needs PythonCall.jl 0.9.30, and the Julia project {} has none"),
        (
            "0.9.29",
            "juliacall 0.9.30 needs PythonCall.jl 0.9.30, and the Julia project {} has 0.9.29",
        ),
        ("", "does not run: ERROR: it is broken"),
    ],
)
def test_no_pythoncall(
    julia: Callable[[str, str], None], tmp_path: Path, pythoncall: str, words: str
) -> None:
    """PythonCall.jl has to be there in juliacall's own version, which is seen before Julia is started here."""
    julia("1.11.7", pythoncall)
    project = tmp_path / "project"
    project.mkdir()

    assert words.format(project) in refusal().message


COMPARE = """
import sys
import numpy as np
from contextlib import closing
from threading import Thread
from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine

bundle = load_bundle("round-or-angular")
batch = np.random.default_rng(1).random((5, *bundle.spec.input.shape[1:]), dtype=np.float32)
try:
    engine = open_engine(config.load(None, {"engine": "juliacall"}), bundle)
except FluxdropError as error:
    sys.exit(f"{error.kind}: {error}")
answers = []
with closing(engine):
    assert "juliacall" == engine.info.engine
    thread = Thread(target=lambda: answers.append(engine.predict(batch)))
    thread.start()
    thread.join()
    answers += [engine.predict(batch[2:]), engine.predict(batch[:1])]
    try:
        engine.predict(batch[:, :, 1:])
    except FluxdropError as error:
        assert "input" == error.kind
with closing(open_engine(config.load(None, {"engine": "onnxruntime"}), bundle)) as reference:
    expected = reference.predict(batch)
for found, wanted in zip(answers, (expected, expected[2:], expected[:1]), strict=True):
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert found.flags.c_contiguous
print("the same")
"""


def test_parity() -> None:
    """Julia in the process gives what onnxruntime gives, whatever thread asks, and ends with the process."""
    run = subprocess.run(
        [sys.executable, "-c", COMPARE], capture_output=True, text=True, timeout=600
    )
    if run.returncode and run.stderr.startswith("julia: "):
        pytest.skip(run.stderr.strip())

    assert ("the same\n", 0) == (run.stdout, run.returncode), run.stderr
