"""Class maps: the numbers belong to the labels by name, in whatever order a dictionary has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.classify import label_probabilities
from support.answer_models import bundle, class_map, red_tensor
from support.engines import ENGINES, opened

pytestmark = pytest.mark.usefixtures("lent_worker")

NAMES = ["cat", "dog", "bird"]
VALUES = {"cat": 0.5241, "dog": 0.0088, "bird": 0.4671}


@pytest.mark.slow
@pytest.mark.parametrize("labels", [NAMES, ["dog", "bird", "cat"]])
@pytest.mark.parametrize("engine", ENGINES)
def test_by_name(tmp_path: Path, engine: str, labels: list[str]) -> None:
    """Each label gets its own number, in any order of the labels, although onnxruntime sorts the dictionary."""
    made = bundle(tmp_path / "m", class_map(NAMES, list(VALUES.values())), f"labels = {labels}")

    with opened(engine, made) as running:
        found = label_probabilities(running.predict(red_tensor())[0], made)

    assert labels == list(found)
    assert pytest.approx(VALUES, abs=1e-5) == found


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["7", "3", "5"], [0.2, 0.7, 0.1]),
        (["a", "b", "c"], [0.1, 0.7, 0.2]),
    ],
)
def test_numbers(tmp_path: Path, engine: str, labels: list[str], expected: list[float]) -> None:
    """Classes that are numbers are found by them; other labels are their names, in the order of the model."""
    made = bundle(tmp_path / "m", class_map([5, 3, 7], [0.1, 0.7, 0.2]), f"labels = {labels}")

    with opened(engine, made) as running:
        found = label_probabilities(running.predict(red_tensor())[0], made)

    assert pytest.approx(expected, abs=1e-5) == list(found.values())


@pytest.mark.parametrize("engine", ENGINES)
def test_other_names(tmp_path: Path, engine: str) -> None:
    """Labels that are not the model's own are refused, as nothing says which is which."""
    made = bundle(tmp_path / "m", class_map(NAMES, [0.5, 0.3, 0.2]), 'labels = ["a", "b", "c"]')

    with (
        pytest.raises(FluxdropError, match="its own labels are cat, dog, bird"),
        opened(engine, made),
    ):
        pass
