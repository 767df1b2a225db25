"""A Julia worker that runs the graphs of all tests of a module: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fluxdrop.config import Settings
from fluxdrop.predict.julia_engine import run_graphs
from fluxdrop.predict.node_check import Run
from fluxdrop.provision import find_julia


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """One worker for all models, with Flux where it loads."""
    install = find_julia()
    if install is None:
        pytest.skip("there is no Julia on this machine")
    with run_graphs(Settings(), install) as worker:
        yield worker
