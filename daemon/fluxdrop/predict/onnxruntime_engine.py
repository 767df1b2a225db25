"""The engine ``onnxruntime``: the reference, and the last resort where there is no Julia."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo


class OnnxruntimeEngine:
    """Runs a bundle's model.onnx as it is, on the CPU, in this process."""

    def __init__(self, bundle: Bundle, note: str | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                os.fspath(bundle.onnx), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no class below Exception
            reason = str(error).strip().split("\n")[0]
            raise FluxdropError(
                f"{bundle.onnx} cannot be run by onnxruntime: {reason}", kind="model"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._info = EngineInfo(
            engine="onnxruntime", backend="onnxruntime", version=ort.__version__, note=note
        )

    @property
    def info(self) -> EngineInfo:
        """What runs."""
        return self._info

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        (output,) = self._session.run(None, {self._input: batch})
        return np.asarray(output, dtype=np.float32)

    def close(self) -> None:
        """Nothing to end: the session goes with this object."""
