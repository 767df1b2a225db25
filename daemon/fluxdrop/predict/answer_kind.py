"""Find out what a model's numbers mean: by what its graph ends in, and by its outputs for several pictures.

What cannot be told is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, OutputKind
from fluxdrop.predict.class_maps import class_names
from fluxdrop.predict.compiler.fit import chosen_output
from fluxdrop.predict.graph_end import End, graph_end
from fluxdrop.predict.unserved import shape_error

if TYPE_CHECKING:
    from onnx import ModelProto

_CLASS_COUNTS = {1000, 1001, 21841, 21842, 21843}
"""The numbers of classes of ImageNet-1k and ImageNet-21k, with and without one for the background."""

_FEW = 32
"""Up to so many numbers are taken for the scores of labels, even if there are none: embeddings are larger."""

_SUM_TOLERANCE = 1e-3
_QUANTISED_TOLERANCE = 0.5
"""How far the rows of a softmax may be from 1, where the graph says that it is one: that of int8 rounds each number."""


def complete_answer(
    bundle: Bundle, model: ModelProto | None, top: dict[str, Any], raw: NDArray[np.float32]
) -> None:
    """Add to *top*, keys of model.toml, the output's name and kind and the labels where they are missing.

    What was found is noted in *top*'s ``origin``, by key.

    Args:
        bundle: The model.
        model: Its ONNX model; None for a native Flux model.
        top: What is known so far.
        raw: The model's outputs for several pictures, batch first.

    Raises:
        FluxdropError: Kind ``model``, when the model is not one that is served, when labels or kind do not fit it, or
            when they cannot be told.
    """
    origin: dict[str, str] = dict(top.get("origin", {}))
    end, names = None, None
    if model is not None:
        output = chosen_output(model, bundle)
        end, names = graph_end(model, output), class_names(model, output)
        if len(model.graph.output) > 1 and "output_name" not in top:
            top["output_name"] = output
            origin["output_name"] = "the model: the only output that fits"
    if raw.ndim != 2:
        raise shape_error(bundle.file, list(raw.shape[1:]), ends_in_softmax=end == "softmax")
    count = raw.shape[1]
    check_kind(bundle.file, top, end)
    has_labels = top.get("output") not in ("embedding", "regression")
    if names and "labels" not in top and has_labels:
        top["labels"] = [str(name) for name in names]
        origin.setdefault("labels", "the model: its class map")
    if "output" not in top:
        labels = top.get("labels")
        found = find_kind(bundle.file, raw, end, len(labels) if labels else None)
        top["output"] = found.output
        origin.setdefault("output", found.origin)
    if "labels" not in top and top["output"] not in ("embedding", "regression"):
        # One sigmoid is the probability of the second of two classes.
        top["labels"] = [str(index) for index in range(2 if top["output"] == "sigmoid" else count)]
        origin.setdefault("labels", "guessed: there were none, so they are numbers")
    _check_count(bundle.file, top, count)
    if origin:
        top["origin"] = origin


def _check_count(file: Path, top: dict[str, Any], count: int) -> None:
    """Check that the model gives *count* numbers for what *top* says."""
    labels = top.get("labels") or []
    wanted = {"embedding": count, "sigmoid": 1}.get(top["output"], len(labels) or 1)
    if wanted == count:
        return
    if top["output"] == "sigmoid":
        says = "output sigmoid is for one"
    elif labels:
        says = f"there {'is 1 label' if len(labels) == 1 else f'are {len(labels)} labels'}"
    else:
        says = "there is one value"
    raise FluxdropError(
        f"{file} gives {count} numbers a picture, and {says}",
        hint="Give as many with --labels, in the model's order, or a file that has them."
        if top["output"] != "sigmoid"
        else "Use --output multi-label.",
        kind="model",
    )


class FoundKind(NamedTuple):
    """A model's kind of output, and how it was found."""

    output: OutputKind
    origin: str
    """For people; begins with ``guessed:`` where it is not sure."""


def find_kind(
    file: Path, raw: NDArray[np.float32], end: End | None, labels: int | None
) -> FoundKind:
    """Return what the numbers of a model mean.

    Args:
        file: The model.
        raw: Its outputs [N, K] for several pictures.
        end: What its graph ends in; None for a native Flux model.
        labels: How many labels are known; None if there are none.

    Raises:
        FluxdropError: Kind ``model``, when this cannot be told; the hint names the options that say it.
    """
    count = raw.shape[1]
    adds_up = bool(raw.min() >= -_SUM_TOLERANCE) and count > 1
    sums = np.abs(raw.sum(axis=1, dtype=np.float64) - 1).max()
    if end == "softmax" and count > 1 and sums < _QUANTISED_TOLERANCE:
        return FoundKind("softmax", "the model: it ends in a softmax")
    if end == "log-softmax" and count > 1:
        return FoundKind("logits", "the model: it ends in a log-softmax")
    if end == "sigmoid":
        kind: OutputKind = "sigmoid" if count == 1 else "multi-label"
        return FoundKind(kind, "the model: it ends in a sigmoid")
    if count == 1:
        raise _ask_about_one(file, labels)
    if adds_up and sums < _SUM_TOLERANCE:
        return FoundKind("softmax", "guessed: its numbers for a picture add up to 1")
    if end != "linear" and raw.min() >= 0 and raw.max() <= 1:
        raise _ask_about_fractions(file, count)
    if labels is not None:
        return FoundKind("logits", "guessed: there are labels, and it ends in no softmax")
    if end == "linear" and count in _CLASS_COUNTS:
        return FoundKind("logits", f"guessed: it gives {count} numbers, as models of ImageNet do")
    if end == "unit-vector":
        return FoundKind("embedding", "the model: it ends in a division by the vector's length")
    if count <= _FEW:
        return FoundKind("logits", "guessed: so few numbers are rather scores than an embedding")
    raise FluxdropError(
        f"{file} gives {count} numbers a picture, and nothing says what they mean",
        hint="Give --labels if they are the scores of labels (--output logits numbers them),"
        " --output regression if they are values, or --output embedding if they are one vector.",
        kind="model",
    )


def check_kind(file: Path, top: dict[str, Any], end: End | None) -> None:
    """Check that what *top*, keys of model.toml, says of the output is not what the graph rules out.

    Raises:
        FluxdropError: Kind ``model``, when it is.
    """
    output = top.get("output")
    says = {"softmax": "a softmax", "sigmoid": "a sigmoid"}.get(end or "")
    if says is None:
        return
    right = "softmax" if end == "softmax" else "multi-label, or sigmoid for one number"
    if output == "logits":
        problem = "its output is not logits"
    elif top.get("activation") == "sigmoid":
        problem = "a sigmoid must not be applied again"
        right += ", without --activation"
    elif end == "sigmoid" and output in ("softmax", "probabilities"):
        problem = "its numbers do not add up to 1"
    else:
        return
    raise FluxdropError(
        f"{file} ends in {says}, so {problem}", hint=f"Use --output {right}.", kind="model"
    )


def _ask_about_one(file: Path, labels: int | None) -> FluxdropError:
    given = f" and there are {labels} labels" if labels and labels > 2 else ""
    return FluxdropError(
        f"{file} gives one number a picture{given}, and it ends in no sigmoid: what the number means"
        " cannot be told",
        hint="Say --output regression if it is a value, --output sigmoid if it is a probability, or --output sigmoid"
        " --activation sigmoid if a sigmoid makes it one.",
        kind="model",
    )


def _ask_about_fractions(file: Path, count: int) -> FluxdropError:
    return FluxdropError(
        f"{file} gives {count} numbers from 0 to 1 a picture that do not add up to 1: what they mean cannot be told",
        hint="Say --output multi-label if each is the probability of a label, --output logits if their softmax is,"
        " --output regression if they are values, or --output embedding.",
        kind="model",
    )
