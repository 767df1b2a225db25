"""Compare what the worker computes with onnxruntime, node by node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.compile import normal_model, translate_errors
from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.graph_file import Graph, Node
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.tidy import names_read
from fluxdrop.predict.parity import NOISE_FACTOR, TOLERANCE, perturbed, relative_difference
from fluxdrop.processes.child import CallFailed
from fluxdrop.telemetry import import_onnxruntime

_PIECE_BYTES = 64 << 20
"""About as large are the values and constants of the nodes that are compared at once."""
_PIECE_NODES = 64
_PACKED = "fluxdrop/packed"
_MODEL = "the whole model"

Run = Callable[[Graph, NDArray[np.float32]], NDArray[np.float32]]
Value = NDArray[Any]


class Difference(NamedTuple):
    """How much a node's output differs from onnxruntime's."""

    node: str
    operator: str
    relative: float
    """The `relative_difference` of the two."""
    diverges: bool
    """Whether that is more than rounding explains."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A node of the model, and the same node as the worker gets it."""

    onnx: NodeProto
    node: Node

    @property
    def inputs(self) -> list[str]:
        return [name for name in self.node.inputs if name]

    @property
    def outputs(self) -> list[str]:
        return [name for name in self.node.outputs if name]


def by_node(
    bundle: Bundle,
    batch: NDArray[np.float32],
    run: Run,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Difference]:
    """Yield the difference of each output of each node, in order of execution, and then that of the whole model.

    Each node gets what onnxruntime computed before it, so that differences do not accumulate. The
    whole model is run as it is served, with some nodes fused into others.

    Args:
        bundle: The model; it has to be of ONNX.
        batch: Tensors [N, ...] to run it on.
        run: Runs a graph on a batch and returns the output.
        progress: Gets the number of nodes done and of all nodes.

    Raises:
        FluxdropError: Kind ``model``, when the model cannot be compiled or run.
    """
    with translate_errors(bundle):
        model = normal_model(bundle)
        graph = lower(model)
    served = fuse(graph)
    if served.input_shape[0] >= 0:
        batch = np.resize(batch, (served.input_shape[0], *batch.shape[1:]))
    protos = {proto.output[0]: proto for proto in model.graph.node}
    steps = [_Step(protos[node.outputs[0]], node) for node in graph.nodes]
    checker = _Checker(model, graph, run)
    values: dict[str, Value] = {graph.input: batch}
    done = 0
    for piece in _pieces(steps, graph, batch, model):
        values |= checker.reference(piece, values)
        yield from checker.compare(piece, values)
        done += len(piece)
        read = {name for step in steps[done:] for name in step.inputs} | {graph.output}
        values = {name: value for name, value in values.items() if name in read}
        if progress is not None:
            progress(done, len(steps))
    try:
        found = run(served, batch)
    except CallFailed as error:
        raise FluxdropError(f"{bundle.onnx}: {error.message}", kind="model") from error
    noise = partial(checker.noise, steps, {graph.input: batch}, [graph.output])
    yield _difference("", _MODEL, values[graph.output], found, noise)


def _difference(
    node: str,
    operator: str,
    expected: Value,
    found: NDArray[np.float32],
    noise: Callable[[], float],
) -> Difference:
    """Return how much *found* differs; *noise* computes what rounding explains, and is called if needed."""
    relative = relative_difference(expected.astype(np.float32), found)
    diverges = relative > TOLERANCE and relative > NOISE_FACTOR * noise()
    return Difference(node, operator, relative, diverges)


def _pieces(
    steps: Sequence[_Step], graph: Graph, batch: NDArray[np.float32], model: ModelProto
) -> Iterator[list[_Step]]:
    """Yield the *steps* in pieces of bounded memory, as far as the sizes of the values are known."""
    sizes = _sizes(model, len(batch))
    sizes |= {name: value.nbytes for name, value in graph.tensors.items()}
    piece: list[_Step] = []
    total = 0
    for step in steps:
        cost = sum(sizes.get(name, batch.nbytes) for name in (*step.inputs, *step.outputs))
        if piece and (total + cost > _PIECE_BYTES or len(piece) == _PIECE_NODES):
            yield piece
            piece, total = [], 0
        piece.append(step)
        total += cost
    yield piece


def _sizes(model: ModelProto, pictures: int) -> dict[str, int]:
    """Return the sizes in bytes of the values whose shape is known; each unknown dimension is the batch."""
    found = {}
    for item in (*model.graph.value_info, *model.graph.output):
        dims = item.type.tensor_type.shape.dim
        shape = [size.dim_value if size.HasField("dim_value") else pictures for size in dims]
        found[item.name] = 4 * math.prod(shape)
    return found


class _Checker:
    """Runs pieces of one model in onnxruntime and in the worker."""

    def __init__(self, model: ModelProto, graph: Graph, run: Run) -> None:
        self._opsets = model.opset_import
        self._ir = model.ir_version
        self._graph = graph
        self._run = run
        self._constants = {item.name: item for item in model.graph.initializer}
        self._constants |= {
            proto.output[0]: proto for proto in model.graph.node if proto.op_type == "Constant"
        }

    def reference(
        self, piece: Sequence[_Step], values: dict[str, Value], outputs: Sequence[str] | None = None
    ) -> dict[str, Value]:
        """Return what onnxruntime computes for the *piece* from *values*: all outputs, or those named."""
        if outputs is None:
            outputs = [name for step in piece for name in step.outputs]
        read = {name for step in piece for name in names_read(step.onnx)}
        constants = [self._constants[name] for name in read if name in self._constants]
        inputs = [name for name in read if name in values]
        graph = helper.make_graph(
            [item for item in constants if isinstance(item, NodeProto)]
            + [step.onnx for step in piece],
            "piece",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
                )
                for name in inputs
            ],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [item for item in constants if isinstance(item, TensorProto)],
        )
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir)
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, {name: values[name] for name in inputs})
        return dict(zip(outputs, map(np.asarray, found), strict=True))

    def compare(self, piece: Sequence[_Step], values: dict[str, Value]) -> Iterator[Difference]:
        """Yield the difference of each output of the *piece*, whose nodes all get their inputs from *values*."""
        try:
            found = self._computed(piece, values)
        except (CallFailed, ValueError) as error:
            if len(piece) > 1:
                # The node at fault is found by halving.
                middle = len(piece) // 2
                yield from self.compare(piece[:middle], values)
                yield from self.compare(piece[middle:], values)
                return
            (step,) = piece
            reason = error.message if isinstance(error, CallFailed) else str(error)
            yield Difference(f"{step.node.name}: {reason}", step.node.operator, math.inf, True)
            return
        for step in piece:
            noise = partial(self.noise, [step], values, step.outputs)
            for name in step.outputs:
                yield _difference(
                    step.node.name, step.node.operator, values[name], found[name], noise
                )

    def _computed(
        self, piece: Sequence[_Step], values: dict[str, Value]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what the worker computes for the *piece*; raise ValueError for a result of another size."""
        names = sorted({name for step in piece for name in step.inputs if name in values})
        outputs = [name for step in piece for name in step.outputs]
        packed = np.concatenate([values[name].astype(np.float32).ravel() for name in names])
        graph = _packed_graph(piece, names, outputs, values, self._graph.tensors)
        answer = self._run(graph, packed)
        ends = np.cumsum([values[name].size for name in outputs])
        if answer.size != ends[-1]:
            raise ValueError(f"{answer.size} numbers, not {ends[-1]}")
        parts = np.split(answer, ends[:-1])
        return {
            name: part.reshape(values[name].shape)
            for name, part in zip(outputs, parts, strict=True)
        }

    def noise(
        self, steps: Sequence[_Step], values: dict[str, Value], outputs: Sequence[str]
    ) -> float:
        """Return how much onnxruntime's own *outputs* of *steps* change when their inputs change by rounding."""
        read = {name for step in steps for name in step.inputs}
        given = {name: value for name, value in values.items() if name in read}
        moved = {
            name: perturbed(value) if value.dtype == np.float32 else value
            for name, value in given.items()
        }
        before, after = (self.reference(steps, it, outputs) for it in (given, moved))
        return max(
            relative_difference(before[name].astype(np.float32), after[name].astype(np.float32))
            for name in outputs
        )


def _packed_graph(
    piece: Sequence[_Step],
    names: Sequence[str],
    outputs: Sequence[str],
    values: dict[str, Value],
    tensors: dict[str, Value],
) -> Graph:
    """Return a graph of the *piece* whose input is all values *names* in a row, and whose output all *outputs*.

    A graph file has one input and one output, of float32.
    """
    constants: dict[str, Value] = {"fluxdrop/row": np.array([-1])}
    nodes: list[Node] = []
    given: dict[str, str] = {}
    start = 0
    for index, name in enumerate(names):
        value = values[name]
        sizes = {"begin": [start], "end": [start + value.size], "shape": list(value.shape)}
        constants |= {f"{_PACKED}/{index}/{key}": np.array(it, "<i8") for key, it in sizes.items()}
        start += value.size
        begin, end, shape = (f"{_PACKED}/{index}/{key}" for key in sizes)
        part, given[name] = f"{_PACKED}/{index}/part", f"{_PACKED}/{index}/given"
        nodes.append(Node("Slice", [_PACKED, begin, end], [part], part))
        nodes.append(_reshape(part, shape, given[name]))
        if value.dtype != np.float32:
            kind = TensorProto.BOOL if value.dtype == np.bool_ else TensorProto.INT64
            nodes.append(_cast(given[name], kind))
            given[name] = nodes[-1].outputs[0]
    for step in piece:
        inputs = [given.get(name, name) for name in step.node.inputs]
        nodes.append(replace(step.node, inputs=inputs))
    rows = []
    for index, name in enumerate(outputs):
        source, row = name, f"fluxdrop/row/{index}"
        if values[name].dtype != np.float32:
            nodes.append(_cast(name, TensorProto.FLOAT))
            source = nodes[-1].outputs[0]
        nodes.append(_reshape(source, "fluxdrop/row", row))
        rows.append(row)
    result = "fluxdrop/result"
    nodes.append(Node("Concat", rows, [result], result, {"axis": 0}))
    read = {name for node in nodes for name in node.inputs}
    constants |= {name: value for name, value in tensors.items() if name in read}
    return Graph(_PACKED, [-1], result, nodes, constants)


def _reshape(value: str, shape: str, result: str) -> Node:
    return Node("Reshape", [value, shape], [result], result, {"allowzero": 1})


def _cast(value: str, kind: TensorProto.DataType) -> Node:
    result = f"{value}/cast"
    return Node("Cast", [value], [result], result, {"to": int(kind)})
