"""The engine ``onnxruntime``: the reference, and the last resort where there is no Julia."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, needs_flux
from fluxdrop.predict.engine import EngineInfo, in_batches_of

_DTYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


class OnnxruntimeEngine:
    """Runs a bundle's model.onnx as it is, on the CPU, in this process."""

    def __init__(self, bundle: Bundle, note: str | None = None) -> None:
        if bundle.kind == "flux":
            raise needs_flux(bundle, "onnxruntime has no Flux")
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                os.fspath(bundle.onnx), options, providers=["CPUExecutionProvider"]
            )
            declared = self._session.get_inputs()[0]
            self._input = declared.name
            self._dtype = _DTYPES.get(declared.type, np.float32)
            fixed = declared.shape[0] if declared.shape else None
            self._batch = fixed if isinstance(fixed, int) else None
            # What does not fit model.toml shows here and not with each picture.
            self._run(np.zeros(bundle.spec.input.shape, dtype=np.float32))
        except Exception as error:  # onnxruntime's exceptions share no class below Exception
            raise FluxdropError(
                f"{bundle.onnx} cannot be run by onnxruntime: {_reason(error)}", kind="model"
            ) from error
        self._info = EngineInfo(
            engine="onnxruntime", backend="onnxruntime", version=ort.__version__, note=note
        )

    @property
    def info(self) -> EngineInfo:
        """What runs."""
        return self._info

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        try:
            return self._run(batch)
        except Exception as error:
            raise FluxdropError(
                f"onnxruntime failed over {len(batch)} pictures: {_reason(error)}", kind="compute"
            ) from error

    def close(self) -> None:
        """Nothing to end: the session goes with this object."""

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return in_batches_of(self._batch, self._run_once, batch)

    def _run_once(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        (output,) = self._session.run(None, {self._input: batch.astype(self._dtype, copy=False)})
        result = np.asarray(output, dtype=np.float32)
        if result.shape[:1] != batch.shape[:1]:
            raise ValueError(f"an output of shape {result.shape} for {len(batch)} pictures")
        return result


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
