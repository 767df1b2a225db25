"""The comparison of each node with onnxruntime, by workers that compute rightly and wrongly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fluxdrop import config
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.compiler.graph_file import Graph
from fluxdrop.predict.julia_engine import run_graphs
from fluxdrop.predict.node_check import by_node
from fluxdrop.provision import find_julia
from support.graph_files import bundle_of, model_of, node
from support.needs import needs_julia

pytestmark = [pytest.mark.slow, needs_julia]


def made(folder: Path) -> tuple[Bundle, NDArray[np.float32]]:
    """A model with integers, truth values and an optional input that is left out, and two pictures for it."""
    model = model_of(
        node("Conv", "x", "w", output="c", pads=[1, 1, 1, 1]),
        node("Relu", "c", output="r"),
        helper.make_node("ArgMax", ["r"], ["i"], axis=1, keepdims=1),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Greater", "r", "f", output="b"),
        node("Where", "b", "r", "f", output="s"),
        node("Clip", "s", "", "high", output="k"),
        node("Flatten", "k"),
        constants={
            "w": np.random.default_rng(1).normal(size=(3, 1, 3, 3)).astype(np.float32),
            "high": np.array(1.5, np.float32),
        },
    )
    pictures = np.random.default_rng(2).normal(size=(2, 1, 6, 8)).astype(np.float32)
    return bundle_of(folder, model), pictures


def test_each_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node is compared, whatever types it has, and then the whole model; progress counts the nodes.

    Here, the values are too large for one piece.
    """
    monkeypatch.setattr("fluxdrop.predict.node_check._PIECE_BYTES", 6000)
    bundle, pictures = made(tmp_path)
    install = find_julia()
    assert install is not None
    told: list[tuple[int, int]] = []

    with run_graphs(config.Settings(), install) as run:
        found = list(by_node(bundle, pictures, run, lambda *step: told.append(step)))

    operators = ["Conv", "Relu", "ArgMax", "Cast", "Greater", "Where", "Clip", "Flatten"]
    assert [*operators, "the whole model"] == [item.operator for item in found]
    assert not any(item.diverges for item in found)
    assert (8, 8) == told[-1]
    assert len(told) > 1


def test_cause(tmp_path: Path) -> None:
    """Of a worker that computes one node wrongly and cannot compute another, these two diverge and no later one."""
    bundle, pictures = made(tmp_path)
    install = find_julia()
    assert install is not None

    with run_graphs(config.Settings(), install) as worker:

        def run(graph: Graph, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            wrong = {"Relu": "Tanh"}
            if graph.input == "fluxdrop/packed":
                wrong["ArgMax"] = "ArgMux"
            nodes = [
                replace(node, operator=wrong.get(node.operator, node.operator))
                for node in graph.nodes
            ]
            return worker(replace(graph, nodes=nodes), batch)

        found = list(by_node(bundle, pictures, run))

    diverging = [item for item in found if item.diverges]
    assert ["Relu", "ArgMax", "the whole model"] == [item.operator for item in diverging]
    assert "ArgMux" in diverging[1].node
