"""Models of Metalhead, Flux's collection of image classifiers, as native bundles."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop import config
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine
from support.needs import missing_in_julia

TOML = 'labels = ["a", "b", "c"]\noutput = "logits"\n[input]\nsize = [64, 64]\n'


def answers(folder: Path, backend: str) -> tuple[str, list[NDArray[np.float32]]]:
    """The backend that ran the bundle, and what it answers to one picture and to two, twice each."""
    settings = config.load(None, {"engine": "julia", "julia_backend": backend})
    numbers = np.random.default_rng(1)
    batches = [numbers.standard_normal((n, 3, 64, 64), np.float32) for n in (1, 2)]
    with closing(open_engine(settings, load_bundle(str(folder)))) as engine:
        return engine.info.backend, [engine.predict(batch) for batch in (*batches, *batches)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    ["ResNet(18; nclasses=3)", "MobileNetv3(:small; nclasses=3)", "ConvNeXt(:tiny; nclasses=3)"],
)
def test_metalhead(model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model of Metalhead gives the answers of Flux's own layers, by fluxdrop's, which it keeps."""
    if lacking := missing_in_julia("Flux", "Metalhead"):
        pytest.skip(lacking)
    code = f"using Metalhead, Random\nbuild_model() = (Random.seed!(1); {model})\n"
    (tmp_path / "flux_model.jl").write_text(code)
    (tmp_path / "model.toml").write_text(TOML)

    name, found = answers(tmp_path, "auto")
    _, expected = answers(tmp_path, "flux")

    assert name == "fast"
    assert "another answer" not in capfd.readouterr().err
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(theirs).max() > 0
        assert np.abs(ours - theirs).max() <= 1e-5 * max(1, np.abs(theirs).max())
