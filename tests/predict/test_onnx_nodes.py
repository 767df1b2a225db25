"""The worker computes what ONNX says: onnx's own node tests, on the layers that are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from fluxdrop.predict.compiler.graph_file import write_temporary
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.operators import UnsupportedError
from fluxdrop.predict.compiler.source import normal_form
from fluxdrop.processes.child import CallFailed, Child
from fluxdrop.processes.wire import FrameKind, pack_tensor, unpack_tensor
from fluxdrop.provision import find_julia, julia_command
from fluxdrop.resources import julia_folder
from support import onnx_nodes
from support.onnx_nodes import EXCLUDED, cases

pytestmark = pytest.mark.slow

MINUTES = 10 * 60


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Child]]:
    """A worker for all cases, and, where Flux loads, another with Flux's own layers."""
    install = find_julia()
    if install is None:
        pytest.skip("there is no Julia on this machine")
    command, environment = julia_command(install)
    children = []
    for backend in ("auto", "flux"):
        argv = [*command, str(julia_folder() / "worker.jl"), "--backend", backend]
        children.append(Child("worker", argv, env=environment, start_timeout=MINUTES))
        if not children[0].hello["flux"]:
            break
    yield children
    for child in children:
        child.stop()


def problem(worker: Child, case: onnx_nodes.Case) -> str:
    """What is wrong with what *worker* makes of *case*; empty if nothing is."""
    try:
        model = normal_form(case.model)
        constants = {item.name: item for item in model.graph.initializer}
        if model.graph.output[0].name in constants:
            # The output does not depend on this input, so the compiler has computed it.
            return differs(case, numpy_helper.to_array(constants[model.graph.output[0].name]))
        graph = write_temporary(lower(model))
        path = os.fsencode(graph.path)
        worker.call(FrameKind.LOAD, path, expect=FrameKind.LOADED, timeout=MINUTES)
        answer = worker.call(
            FrameKind.PREDICT,
            *pack_tensor(case.input),
            expect=FrameKind.PREDICTION,
            timeout=MINUTES,
        )
    except (UnsupportedError, CallFailed) as error:
        return str(error)
    return differs(case, unpack_tensor(answer.payload))


def differs(case: onnx_nodes.Case, found: NDArray[Any]) -> str:
    """How *found* differs from what is expected of *case*; empty if it does not."""
    if found.shape != case.expected.shape:
        return f"shape {found.shape}, not {case.expected.shape}"
    expected = case.expected.astype(np.float32)
    if not np.allclose(expected, found, rtol=1e-3, atol=1e-5, equal_nan=True):
        return f"off by {np.nanmax(np.abs(expected - found)):g}"
    return ""


@pytest.mark.parametrize("operator", onnx_nodes.OPERATORS)
def test_operator(workers: list[Child], operator: str) -> None:
    """Every float32 case of the operator comes out as onnx says, but for those named in EXCLUDED."""
    tried = [case for case in cases()[operator] if case.name.split("[")[0] not in EXCLUDED]

    assert tried
    for worker in workers:
        problems = {case.name: problem(worker, case) for case in tried}
        note(worker, operator, problems)

        assert {} == {name: words for name, words in problems.items() if words}


def note(worker: Child, operator: str, problems: dict[str, str]) -> None:
    """Add a line to the file that docs/onnx-coverage.md is made of, where one is asked for."""
    path = os.environ.get("FLUXDROP_COVERAGE")
    if path:
        facts = {key: worker.hello[key] for key in ("backend", "julia", "flux")}
        line = {"operator": operator, **facts, "problems": problems}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")


def test_other_operators() -> None:
    """What the page calls excluded or missing is refused: as an operator, or as one that it is made of."""
    others = {*onnx_nodes.EXCLUDED_OPERATORS, *onnx_nodes.MISSING_OPERATORS}
    found: dict[str, ModelProto] = {}
    for case in onnx_nodes.collect(others):
        found.setdefault(case.operator, case.model)

    assert found
    for model in found.values():
        with pytest.raises(UnsupportedError, match="not supported"):
            lower(normal_form(model))
