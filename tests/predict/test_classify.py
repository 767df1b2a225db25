"""From a model's output to labels with probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.classify import label_probabilities

EMBEDDED = load_bundle("round-or-angular")


def bundle(output: Any = "probabilities", labels: int = 3) -> Bundle:
    changed = msgspec.structs.replace(
        EMBEDDED.spec, output=output, labels=[f"label {n}" for n in range(labels)]
    )
    return replace(EMBEDDED, spec=changed)


def probabilities(values: list[float], output: str = "probabilities") -> list[float]:
    found = label_probabilities(np.array(values, np.float32), bundle(output, len(values)))
    assert [f"label {n}" for n in range(len(values))] == list(found)
    return list(found.values())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]),
        ([1.00001, -0.00001], [1.0, 0.0]),
        ([0.9, 0.9], [0.9, 0.9]),
        ([1.0], [1.0]),
    ],
)
def test_probabilities(values: list[float], expected: list[float]) -> None:
    """Probabilities are kept in the model's order, but for what rounding put beyond 0 or 1."""
    assert pytest.approx(expected, abs=1e-6) == probabilities(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([math.log(3), 0.0], [0.75, 0.25]),
        ([1000.0, 0.0], [1.0, 0.0]),
        ([-1e30, 1e30], [0.0, 1.0]),
    ],
)
def test_logits(values: list[float], expected: list[float]) -> None:
    """Logits go through a softmax that no size of them makes overflow."""
    assert pytest.approx(expected) == probabilities(values, "logits")


@given(arrays(np.float32, 5, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_logits_become_probabilities(values: Any) -> None:
    """Whatever finite logits a model gives, the probabilities lie from 0 to 1 and add up to 1."""
    found = list(label_probabilities(values, bundle("logits", 5)).values())

    assert pytest.approx(1.0, abs=1e-5) == sum(found)
    assert all(0 <= p <= 1 for p in found)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), ()])
def test_other_shapes(shape: tuple[int, ...]) -> None:
    """An output that does not fit the labels is refused, with the file to correct."""
    with pytest.raises(FluxdropError, match="has 3 labels") as caught:
        label_probabilities(np.zeros(shape, np.float32), bundle())

    assert "model.toml" in caught.value.hint


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(output: str, value: float) -> None:
    """Numbers that are none are refused and no result."""
    with pytest.raises(FluxdropError, match="not finite") as caught:
        probabilities([0.5, value], output)

    assert "model" == caught.value.kind


@pytest.mark.parametrize("values", [[2.5, -1.0], [0.0, 1.01], [-0.01, 0.5]])
def test_logits_that_are_said_to_be_probabilities(values: list[float]) -> None:
    """Logits are not cut to 0 and 1 where model.toml says nothing of them; the remedy is told."""
    with pytest.raises(FluxdropError, match="not probabilities") as caught:
        probabilities(values)

    assert 'output = "logits"' in caught.value.hint
