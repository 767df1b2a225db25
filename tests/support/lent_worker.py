"""A Julia worker that the engines of many tests use one after the other: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fluxdrop.config import Settings
from fluxdrop.predict import julia_engine
from fluxdrop.predict.worker import Worker
from fluxdrop.provision import JuliaInstall


class _Kept(Worker):
    """A worker that no engine stops."""

    def stop(self, grace: float = 2.0) -> None:
        """Leave it for the next engine."""

    def end(self) -> None:
        """Stop it."""
        super().stop()


@pytest.fixture(scope="session")
def _lend() -> Iterator[Callable[..., Worker]]:
    kept: list[_Kept] = []

    def lend(settings: Settings, install: JuliaInstall, _hook: object = None) -> Worker:
        if not (kept and kept[-1].alive()):
            kept.append(_Kept(settings, install))
        return kept[-1]

    yield lend
    for worker in kept:
        worker.end()


@pytest.fixture
def lent_worker(_lend: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines `julia` of the test, which ask for the layers that are taken by default, load their model into a worker
    that is there already, and leave it there."""
    monkeypatch.setattr(julia_engine, "Worker", _lend)
