"""Quantised and float16 networks in full size, against the same in float32."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from benchmarks.networks import compiled, exported, random_pictures
from benchmarks.table import Row
from benchmarks.worker import predict, worker
from fluxdrop.predict.compiler.graph_file import Graph
from fluxdrop.predict.compiler.source import normal_form, parse

_SHOWN = {"MobileNetV2": "MobileNetV2", "ResNet": "ResNet-18"}
_BATCHES = (1, 8)
_TURNS = 9
_TIMES_A_TURN = 5


def rows() -> Iterator[Row]:
    """One forward pass of each network, in turns with that in float32, on every processor."""
    for name, shown in _SHOWN.items():
        # Batch norms are folded, as they are before a network is quantised.
        model = normal_form(parse(exported(name)[0]))
        whole = compiled(model.SerializeToString())
        others = {"int8 (QDQ, per channel)": _quantised(model), "float16": _halved(model)}
        for kind, other in others.items():
            graph = compiled(other.SerializeToString())
            for batch in _BATCHES:
                figure = _over(graph, whole, random_pictures(batch))
                what = f"{shown} in {kind}, batch {batch}, against float32"
                yield Row(what, ">= 1.0", figure, "x as fast", figure >= 1)


def _over(graph: Graph, other: Graph, pictures: NDArray[np.float32]) -> float:
    """How many times as fast as *other*; in turns, as others who come and go would favour the one."""
    ratios = []
    with worker("plain", graph) as ours, worker("plain", other) as theirs:
        for _ in range(_TURNS):
            times = []
            for child in (ours, theirs):
                # Until the threads of the other sleep, who would take this one's processors.
                time.sleep(0.1)
                times.append(predict(child, pictures, _TIMES_A_TURN))
            ratios.append(times[1] / times[0])
    return median(ratios)


def _quantised(model: ModelProto) -> ModelProto:
    # The tests quantise in the same way, a smaller network.
    from support.quantised_models import quantise

    with tempfile.TemporaryDirectory() as folder:
        return quantise(model, random_pictures(1), Path(folder), "qdq-per-channel")


def _halved(model: ModelProto) -> ModelProto:
    """Return *model* with its weights, input and output in float16."""
    halved = ModelProto()
    halved.CopyFrom(model)
    for item in halved.graph.initializer:
        if item.data_type == TensorProto.FLOAT:
            item.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name)
            )
    for value in (*halved.graph.input, *halved.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del halved.graph.value_info[:]
    return halved
