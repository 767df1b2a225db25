"""Decide whether an engine's output differs from onnxruntime's by more than rounding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.predict.julia_engine import run_graphs
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.predict.parity import NOISE_FACTOR, TOLERANCE, relative_difference
from fluxdrop.provision import find_julia

_STEP = 1 / 255
"""One step of 8 bits: rounding may change the step that a number is rounded to."""

_LARGE_NOISE = 1e-2
"""Beyond this, a defect could hide in a model's rounding, so each node is compared as well."""


class Comparison(NamedTuple):
    """How an engine's output compares with onnxruntime's."""

    difference: float
    """The `relative_difference`."""
    remark: str | None = None
    """Why it is large; None if it is not."""


def compare(
    bundle: Bundle,
    settings: Settings,
    batch: NDArray[np.float32],
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    engine: EngineInfo,
) -> Comparison:
    """Compare what *engine* *found* for *batch* with what onnxruntime *expected* as float32.

    A difference is no defect if rounding makes onnxruntime's own output differ about as much.

    Raises:
        FluxdropError: Kind ``model``, when the difference is larger than that.
    """
    difference = relative_difference(expected, found)
    if difference <= TOLERANCE:
        return Comparison(difference)
    if engine.engine == "onnxruntime" and np.isfinite(difference):
        return Comparison(difference, "it computes in a type of lower precision than float32")
    # The compiler imports onnx.
    from fluxdrop.predict.compiler.compile import quantised

    noise = rounding_noise(bundle, batch, expected)
    has_steps = quantised(bundle)
    if not difference <= NOISE_FACTOR * noise or (
        noise > _LARGE_NOISE and _has_diverging_node(bundle, settings, batch)
    ):
        raise FluxdropError(
            f"{bundle.onnx.name} gives other numbers on {engine.backend} than on onnxruntime:"
            f" off by {difference:.2g} of the largest, where rounding explains {noise:.2g}",
            hint="This is a defect of fluxdrop; please report it with the model. Until it is mended, add the model"
            " with --engine onnxruntime.",
            kind="model",
        )
    remark = f"rounding alone changes its output in onnxruntime by {noise:.1e} of the largest"
    if has_steps:
        remark = (
            "it is quantised, and its numbers are rounded to the same steps, but in float32; with and without its"
            f" optimiser, onnxruntime differs from itself by up to {noise:.1e}"
        )
    elif noise > _LARGE_NOISE:
        remark += ", so that its answers mean little, as with weights that are not trained"
    return Comparison(difference, remark)


def rounding_noise(
    bundle: Bundle, batch: NDArray[np.float32], expected: NDArray[np.float32]
) -> float:
    """Return how much rounding changes what onnxruntime *expected* for *batch*.

    That is the largest `relative_difference` from the output without onnxruntime's optimiser, and
    from that with all weights changed by one rounding step; for a quantised model at least one step.
    Any sound way to compute a sum is as good as the exact sum of numbers that are changed by about as
    much (N. J. Higham, Accuracy and Stability of Numerical Algorithms, chapter 3).
    """
    # The compiler imports onnx.
    from fluxdrop.predict.compiler.compile import float32_form, quantised, rounded_form

    forms = (float32_form(bundle), rounded_form(bundle))
    engines = (OnnxruntimeEngine(bundle, model=form, optimised=False) for form in forms)
    differences = [relative_difference(expected, engine.predict(batch)) for engine in engines]
    return max(differences + [_STEP] * quantised(bundle))


def _has_diverging_node(bundle: Bundle, settings: Settings, batch: NDArray[np.float32]) -> bool:
    """Return whether a node of its own differs by more than rounding; False where there is no Julia to tell."""
    install = find_julia()
    if install is None:
        return False
    # The compiler imports onnx.
    from fluxdrop.predict.node_check import by_node

    with run_graphs(settings, install) as run:
        return any(item.diverges for item in by_node(bundle, batch, run) if item.node)
