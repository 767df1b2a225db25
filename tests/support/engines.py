"""Engines that are open for as long as a test needs them, and the sample pictures as tensors."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop import config
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.engine import Engine
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_tensor
from support.daemons import SAMPLES
from support.needs import needs_julia

BUNDLE = load_bundle("round-or-angular")
ENGINES = [pytest.param("julia", marks=needs_julia), "onnxruntime"]


def opened(engine: str, bundle: Bundle = BUNDLE, **options: Any) -> closing[Engine]:
    """An engine that is closed at the end of a with statement."""
    flags = {"engine": engine, "worker_call_seconds": 30.0, **options}
    return closing(open_engine(config.load(None, flags), bundle))


def sample_tensors() -> dict[str, NDArray[np.float32]]:
    """The tensors of the 12 sample pictures, by their files' names."""
    tensors = {}
    for path in sorted(SAMPLES.glob("*.png")):
        image, _ = open_picture(path, max_file_bytes=10**7, max_pixels=10**7)
        tensors[path.name] = to_tensor(image, BUNDLE.spec.input)
    assert len(tensors) == 12
    return tensors


TENSORS = sample_tensors()
BATCH = np.concatenate(list(TENSORS.values()))
