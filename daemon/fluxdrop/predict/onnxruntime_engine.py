"""The engine ``onnxruntime``: the reference for the others, and the fallback without Julia."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, flux_required_error
from fluxdrop.predict.class_maps import class_names, class_order
from fluxdrop.predict.engine import EngineInfo, label_rows, run_in_batches
from fluxdrop.predict.model_signature import (
    INTEGERS,
    Shape,
    integer_problem,
    label_output,
    picture_shape,
)
from fluxdrop.predict.onnx_session import mentions, open_session
from fluxdrop.predict.unserved import batch_error
from fluxdrop.telemetry import import_onnxruntime

_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_INTEGERS = {f"tensor({kind})": kind for kind in INTEGERS}


class OnnxruntimeEngine:
    """Runs a bundle's model.onnx as it is, on the CPU, in this process.

    A model of a float type for which onnxruntime lacks operators is run as float32. One that
    quantises by the largest values of a batch is given batches of one picture.

    Args:
        bundle: The model; a native Flux model is refused.
        note: Why this engine runs and not the preferred one.
        model: What `fit_to_spec` made of the bundle's model, to be run instead of it.
        optimised: Let onnxruntime rewrite the model for speed.

    Raises:
        FluxdropError: Kind ``model``, when onnxruntime cannot run the model.
    """

    def __init__(
        self,
        bundle: Bundle,
        note: str | None = None,
        *,
        model: bytes | None = None,
        optimised: bool = True,
    ) -> None:
        if bundle.kind == "flux":
            raise flux_required_error(bundle, "onnxruntime has no Flux")
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Spinning threads would take a core from the stages that prepare the next pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session, is_fitted = _open_session(bundle, options, model)
            declared = self._session.get_inputs()[0]
            self._input = declared.name
            self._dtype = _dtype(declared, bundle)
            shape = _shape(declared)
            self._batch = shape[0] if shape and shape[0] >= 0 else None
            accepted = picture_shape(shape, bundle.spec.input)
            self._reshape = accepted if accepted != bundle.spec.input.shape[1:] else None
            self._file = bundle.onnx
            self._output: str = self._session.get_outputs()[0].name
            is_map = False
            if not is_fitted:
                self._output, is_map = _label_output(self._session, bundle)
            self._class_keys = _class_keys(bundle, self._output) if is_map else []
            # A model that does not fit model.toml fails here, and not with each picture.
            self._run(np.zeros(bundle.spec.input.shape, dtype=np.float32))
        except FluxdropError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no class below Exception
            raise FluxdropError(
                f"{bundle.onnx} cannot be run by onnxruntime: {_reason(error)}", kind="model"
            ) from error
        self._info = EngineInfo(
            engine="onnxruntime", backend="onnxruntime", version=ort.__version__, note=note
        )

    @property
    def info(self) -> EngineInfo:
        """What runs the model."""
        return self._info

    def prepare(self) -> None:
        """Do nothing: the constructor opened the model."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        try:
            return self._run(batch)
        except FluxdropError:
            raise
        except Exception as error:
            raise FluxdropError(
                f"onnxruntime failed on {len(batch)} pictures: {_reason(error)}", kind="compute"
            ) from error

    @property
    def outage(self) -> str:
        """Always empty: there is no process that could be missing."""
        return ""

    def check_health(self) -> None:
        """Do nothing: there is no process to check."""

    def close(self) -> None:
        """Do nothing: the session is freed with this object."""

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return run_in_batches(self._batch, self._run_once, batch)

    def _run_once(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one batch of a size that the model takes."""
        pictures = batch.astype(self._dtype, copy=False)
        if self._reshape is not None:
            pictures = pictures.reshape(len(batch), *self._reshape)
        (output,) = self._session.run([self._output], {self._input: pictures})
        if isinstance(output, list):
            # A class map gives a dictionary per picture, in the order of its keys.
            output = [[row[key] for key in self._class_keys] for row in output]
        result = label_rows(np.asarray(output, dtype=np.float32), len(batch))
        if result.shape[:1] != batch.shape[:1]:
            raise batch_error(self._file, result.shape, len(batch))
        return result


def _open_session(bundle: Bundle, options: Any, model: bytes | None) -> tuple[Any, bool]:
    """Return onnxruntime's session, and whether it is that of a fitted model.

    That is the session of *model*, else of the bundle's own, as far as it can be run as it is.
    """
    if model is None:
        failure: Exception | None = None
        try:
            session = open_session(bundle.onnx, options)
        except Exception as error:  # onnxruntime's exceptions share no class below Exception
            failure = error
        else:
            if _runs_as_it_is(session, bundle):
                return session, False
        # The compiler imports onnx.
        from fluxdrop.predict.compiler.compile import fitted_form, float32_form

        model = fitted_form(bundle) if failure is None else float32_form(bundle)
        if model is None:
            assert failure is not None
            raise failure
    return open_session(model, options), True


def _runs_as_it_is(session: Any, bundle: Bundle) -> bool:
    """Return whether the model gives real numbers, and for each picture the same ones in any batch."""
    types = [item.type for item in session.get_outputs()]
    if not any(kind in _FLOATS or kind.startswith("seq(map(") for kind in types):
        return False
    # The names of the operators that quantise a batch by its largest values.
    return not mentions(bundle.onnx, b"DynamicQuantize")


def _dtype(declared: Any, bundle: Bundle) -> str:
    """Return the numpy type of the input that the session *declared*; raise ValueError for what is no number."""
    if declared.type in _INTEGERS:
        problem = integer_problem(_INTEGERS[declared.type], bundle.spec.input)
        if problem:
            raise ValueError(f"its input {declared.name} {problem}")
    elif declared.type not in _FLOATS:
        raise ValueError(f"its input {declared.name} holds {declared.type}, not numbers")
    return (_FLOATS | _INTEGERS)[declared.type]


def _shape(declared: Any) -> Shape:
    return tuple(size if isinstance(size, int) else -1 for size in declared.shape)


def _label_output(session: Any, bundle: Bundle) -> tuple[str, bool]:
    """Return the name of the output with the answer (see `label_output`), and whether it is a class map."""
    maps = set()
    shapes: dict[str, Shape | None] = {}
    for item in session.get_outputs():
        is_map = item.type.startswith("seq(map(")
        maps |= {item.name} if is_map else set()
        is_float = item.type in _FLOATS
        shape = _shape(item) or (-1, -1) if is_float else None
        shapes[item.name] = (-1, -1) if is_map else shape
    name = label_output(shapes, bundle.spec.columns, bundle.spec.output_name)
    return name, name in maps


def _class_keys(bundle: Bundle, output: str) -> list[str | int]:
    """Return the keys of the class map *output* in the order of *bundle*'s labels.

    Raises:
        ValueError: They are not the labels.
    """
    import onnx

    model = onnx.load(bundle.onnx)
    order = class_order(model, output, bundle.spec.labels)
    names: list[str | int] = [*(class_names(model, output) or [])]
    return [names[place] for place in order]


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
