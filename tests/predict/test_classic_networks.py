"""The nine classic networks that onnx ships, as they were published: IR version 3, opset 9, outputs [N, K, 1, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.engine import label_rows
from fluxdrop.predict.node_check import Run
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from support.graph_files import bundle_of
from support.needs import needs_julia

pytestmark = [pytest.mark.slow, needs_julia]

NETWORKS = sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/*.onnx"))


def test_there_are_nine() -> None:
    """onnx still ships them."""
    assert 9 == len(NETWORKS)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda path: path.stem)
def test_network(tmp_path: Path, run: Run, network: Path) -> None:
    """Each runs on Julia, with what onnxruntime gives: their weights are constants, and so are their answers."""
    bundle = bundle_of(tmp_path, network.read_bytes(), size=(3, 224, 224))
    picture: NDArray[np.float32] = np.zeros((1, 3, 224, 224), np.float32)

    found = label_rows(run(compile_bundle(bundle), picture), 1)

    assert (1, 1000) == found.shape
    expected = OnnxruntimeEngine(bundle).predict(picture)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
