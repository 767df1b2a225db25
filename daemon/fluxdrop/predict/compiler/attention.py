"""Attention in the form that image models use, as matrix products and a softmax.

ONNX's own function for Attention computes shapes and guards that are constant in an image model. It serves where the
form here does not: keys of earlier calls, windows, masks that are computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from fluxdrop.predict.compiler.operators import NodeView, UnsupportedError
from fluxdrop.predict.compiler.rewriters import Replacement, rewriter


@rewriter("Attention")
def _attention(node: NodeView, new: Replacement) -> None:
    if any(node.inputs[4:]) or any(new.outputs[1:]):
        raise UnsupportedError("it continues with keys and values of an earlier call")
    if any(
        node.attributes.get(name, -1) >= 0 for name in ("left_window_size", "right_window_size")
    ):
        raise UnsupportedError("it attends to a window only")
    ranks = [node.rank(index) for index in range(3)]
    if ranks == [4, 4, 4]:
        heads, key_heads = (_size(node, index, 1) for index in (0, 1))
        width = _size(node, 0, 3)
        query, key, value = node.inputs[:3]
    else:
        heads = int(node.attributes.get("q_num_heads", 0))
        key_heads = int(node.attributes.get("kv_num_heads", 0))
        if ranks != [3, 3, 3] or heads < 1:
            raise UnsupportedError("the number of its heads is not known")
        width = _size(node, 0, 2) // heads
        query, key, value = (with_heads(new, name, heads) for name in node.inputs[:3])
    if heads != key_heads:
        raise UnsupportedError("its keys have another number of heads than its queries")
    result = attend(
        new,
        (query, key, value),
        node.attributes.get("scale") or width**-0.5,
        _bias(node),
        float(node.attributes.get("softcap", 0.0)),
    )
    if ranks[0] == 4:
        new.finish("Identity", result)
    else:
        new.finish("Reshape", new.add("Transpose", result, perm=[0, 2, 1, 3]), [0, 0, -1])


def with_heads(new: Replacement, value: str, heads: int) -> str:
    """Add nodes that turn a *value* of [N, length, heads * width] into [N, heads, length, width]."""
    return new.add("Transpose", new.add("Reshape", value, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def attend(
    new: Replacement,
    operands: tuple[str, str, str],
    scale: float,
    bias: str | NDArray[Any] | None = None,
    softcap: float = 0.0,
) -> str:
    """Add nodes for the attention of query, key and value, each of [N, heads, length, width]; return the result."""
    query, key, value = operands
    transposed = new.add("Transpose", key, perm=[0, 1, 3, 2])
    scores = new.add("MatMul", new.add("Mul", query, float(scale)), transposed)
    if softcap:
        scores = new.add("Mul", new.add("Tanh", new.add("Mul", scores, 1 / softcap)), softcap)
    if bias is not None:
        scores = new.add("Add", scores, bias)
    return new.add("MatMul", new.add("Softmax", scores, axis=-1), value)


def _size(node: NodeView, index: int, axis: int) -> int:
    """Return a size of input *index*; raise UnsupportedError if it is not known."""
    shape = node.shapes.get(node.inputs[index]) or ()
    if len(shape) <= axis or shape[axis] < 1:
        raise UnsupportedError("the sizes of its inputs are not known")
    return shape[axis]


def _bias(node: NodeView) -> str | NDArray[Any] | None:
    """Return what is added to the scores: the mask and, with ``is_causal``, a triangle; None for nothing."""
    lengths = [(node.shapes.get(name) or (-1, -1))[-2] for name in node.inputs[:2]]
    mask = node.inputs[3] if len(node.inputs) > 3 else ""
    given = _mask_value(node, mask, lengths[1]) if mask else np.zeros((), dtype=np.float32)
    if not node.attributes.get("is_causal", 0):
        return given if isinstance(given, str) or given.any() else None
    if isinstance(given, str) or min(lengths) < 1:
        raise UnsupportedError("it is causal, and its lengths or its mask are computed")
    triangle: NDArray[Any] = given + _additive(np.tri(*lengths, dtype=np.bool_))
    return triangle


def _mask_value(node: NodeView, mask: str, keys: int) -> str | NDArray[Any]:
    """Return the *mask* as an additive constant, or its name where the graph computes it."""
    # What is expanded to the size of the batch is the same for each picture.
    producer = node.producers.get(mask)
    source = producer.input[0] if producer is not None and producer.op_type == "Expand" else mask
    constant = node.constants.get(source)
    if keys < 1 or keys not in {(node.shapes.get(name) or (-1,))[-1] for name in (mask, source)}:
        raise UnsupportedError("its mask may be shorter than its keys")
    if constant is not None:
        return _additive(constant)
    if node.element_type(3) != TensorProto.FLOAT:
        raise UnsupportedError("its mask is computed")
    return mask


def _additive(mask: NDArray[Any]) -> NDArray[Any]:
    """Return the boolean or additive *mask* as an additive one.

    Raises:
        UnsupportedError: When it hides all keys of a query.
    """
    values = mask
    if mask.dtype == np.bool_:
        values = np.where(mask, np.float32(0), np.float32(-np.inf))
    if np.isneginf(values).all(axis=-1).any():
        raise UnsupportedError("its mask hides all keys")
    return values.astype(np.float32)
