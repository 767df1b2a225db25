"""Well-known networks in full size, against onnxruntime and against Flux as one would write it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.densenet import densenet
from benchmarks.table import Row, seconds, without_flux
from benchmarks.worker import has_flux, predict, script, worker
from fluxdrop.predict.compiler.fusion import fuse
from fluxdrop.predict.compiler.graph_file import Graph
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.source import normal_form, parse
from fluxdrop.telemetry import import_onnxruntime

_NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet": {
        "embedding_size": 64,
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
        "layer_type": "basic",
        "image_size": 224,
    },
    "MobileNetV2": {"image_size": 224},
    "EfficientNet": {
        "image_size": 224,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
    },
    "ConvNext": {"image_size": 224},
    "ViT": {
        "image_size": 224,
        "hidden_size": 192,
        "num_attention_heads": 3,
        "intermediate_size": 768,
    },
    "RegNet": {
        "image_size": 224,
        "hidden_sizes": [48, 120, 336, 888],
        "depths": [2, 6, 17, 2],
        "groups_width": 24,
    },
}
_SHOWN = {
    "ResNet": "ResNet-18",
    "EfficientNet": "EfficientNet-B0",
    "ConvNext": "ConvNeXt-tiny",
    "ViT": "ViT-tiny",
    "RegNet": "RegNetY-1.6GF",
}
_DENSENET = "DenseNet-121"
_BATCHES = (1, 8)
_TURNS = 5
_TIMES_A_TURN = 5
# Until the threads of the one sleep, who would take the other's processors.
_PAUSE_SECONDS = 0.1
# A call leaves so little behind that Julia collects it every 200 calls or so: what is fewer shows that, and no growth.
_MANY_TIMES = 600


def rows() -> Iterator[Row]:
    """One forward pass of each network with random weights at 224x224, on every processor."""
    for name in (*_NETWORKS, _DENSENET):
        onnx, _ = exported(name)
        graph = compiled(onnx)
        for batch in _BATCHES:
            figure = _over_onnxruntime(onnx, graph, random_pictures(batch))
            what = f"{_SHOWN.get(name, name)}, batch {batch}, against onnxruntime"
            yield Row(what, ">= 0.8", figure, "x as fast", figure >= 0.8)
    yield _growth()
    yield from _against_flux()


def _over_onnxruntime(onnx: bytes, graph: Graph, pictures: NDArray[np.float32]) -> float:
    """How many times as fast as onnxruntime; in turns, as others who come and go would favour the one."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: pictures}
    ratios = []
    with worker("plain", graph) as child:
        for _ in range(_TURNS):
            time.sleep(_PAUSE_SECONDS)
            ours = predict(child, pictures, _TIMES_A_TURN)
            time.sleep(_PAUSE_SECONDS)
            session.run(None, inputs)
            theirs = seconds(lambda: session.run(None, inputs), _TIMES_A_TURN)
            ratios.append(theirs / ours)
    return median(ratios)


def _growth() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        graph, tensor = Path(folder) / "model.graph", Path(folder) / "tensor.npy"
        graph.write_bytes(compiled(exported("MobileNetV2")[0]).to_bytes())
        np.save(tensor, random_pictures(1))
        _, growth = script("predict.jl", graph, tensor, _MANY_TIMES)
    what = f"most memory, MobileNetV2: growth in the last {_MANY_TIMES // 2} calls"
    return Row(what, "<= 1", growth / 1e6, "MB", growth <= 1e6)


def _against_flux() -> Iterator[Row]:
    for name in ("ResNet-18", "MobileNetV2"):
        for batch in _BATCHES:
            what, target = f"{name} as a Flux Chain by hand, batch {batch}, made fast", ">= 2.0"
            if not has_flux():
                yield without_flux(what, target)
                continue
            chain, quick = script("flux_chain.jl", name, batch, _TURNS)
            figure = chain / quick
            yield Row(what, target, figure, "x as fast", figure >= 2)


def random_pictures(batch: int) -> NDArray[np.float32]:
    """Return as many pictures of 224x224 as *batch* says, (N, 3, H, W), always the same."""
    return np.random.default_rng(batch).standard_normal((batch, 3, 224, 224), dtype=np.float32)


def compiled(onnx: bytes) -> Graph:
    """Return the graph that the worker gets for *onnx*."""
    return fuse(lower(normal_form(parse(onnx))))


@cache
def exported(name: str) -> tuple[bytes, int]:
    """Return the network *name* in ONNX, with random weights, and the number of its classes."""
    # The tests export the same architectures, only smaller.
    from support import architectures

    if name == _DENSENET:
        import torch

        torch.manual_seed(20)
        model, pictures = densenet(architectures.LABELS), torch.zeros(2, 3, 224, 224)
        program = architectures.export(model, pictures)
        return program.model_proto.SerializeToString(), architectures.LABELS
    return architectures.exported(name, _NETWORKS[name])[0], architectures.LABELS
