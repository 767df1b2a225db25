"""From a model's output to its answer, of each kind."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.answer import Answer, answer_of
from fluxdrop.predict.bundle import Bundle, load_bundle

EMBEDDED = load_bundle("round-or-angular")


def bundle(**keys: Any) -> Bundle:
    return replace(EMBEDDED, spec=msgspec.structs.replace(EMBEDDED.spec, **keys))


def answer(numbers: list[float], **keys: Any) -> Answer:
    return answer_of(np.array(numbers, np.float32), bundle(**keys))


def test_one_sigmoid_of_two_labels() -> None:
    """One probability is that of the second of two labels, as Keras numbers the classes."""
    found = answer([0.931], output="sigmoid", labels=["no", "yes"])

    assert "classification" == found.kind
    assert pytest.approx({"no": 0.069, "yes": 0.931}) == found.probabilities


@pytest.mark.parametrize(("threshold", "labels"), [(0.5, ["yes"]), (0.95, [])])
def test_one_sigmoid_of_one_label(threshold: float, labels: list[str]) -> None:
    """The only label is found from its threshold on."""
    found = answer([0.931], output="sigmoid", labels=["yes"], thresholds=(threshold,))

    assert ("multi-label", labels) == (found.kind, found.found)
    assert pytest.approx({"yes": 0.931}) == found.probabilities


def test_several_labels() -> None:
    """Each label has its own probability and threshold; the found ones come by probability."""
    found = answer(
        [0.118, 0.553, 0.645],
        output="multi-label",
        labels=["red", "big", "round"],
        thresholds=(0.1, 0.6, 0.6),
    )

    assert pytest.approx({"red": 0.118, "big": 0.553, "round": 0.645}) == found.probabilities
    assert ["round", "red"] == found.found
    assert {"red": 0.1, "big": 0.6, "round": 0.6} == found.thresholds


@pytest.mark.parametrize(("logit", "p"), [(0.0, 0.5), (math.log(3), 0.75), (1e30, 1), (-1e30, 0)])
def test_activation(logit: float, p: float) -> None:
    """Where the model has no sigmoid, it is applied, and no size of the logits makes it overflow."""
    keys = {"labels": ["a", "b"], "output": "multi-label", "activation": "sigmoid"}

    assert pytest.approx([p, 0.5]) == list(answer([logit, 0.0], **keys).probabilities.values())


@pytest.mark.parametrize(
    ("keys", "units"),
    [
        ({"value_name": "age", "unit": "years"}, {"age": "years"}),
        ({"labels": ["age"], "unit": "years"}, {"age": "years"}),
        ({"labels": ["size", "age"], "unit": ["m", "years"]}, {"size": "m", "age": "years"}),
        ({"labels": ["width", "height"], "unit": "m"}, {"width": "m", "height": "m"}),
    ],
)
def test_regression(keys: dict[str, Any], units: dict[str, str]) -> None:
    """A regression's number is its value, whatever its size, with a name and a unit."""
    found = answer([37.5] * len(units), **{"labels": [], "output": "regression"} | keys)

    assert ("regression", dict.fromkeys(units, 37.5), units) == (
        found.kind,
        found.values,
        found.units,
    )
    assert {} == found.probabilities


def test_embedding() -> None:
    """An embedding is the numbers as they are, of any number."""
    found = answer([1.5, -2.0, 0.25], output="embedding", labels=[])

    assert found.embedding is not None
    assert ("embedding", [1.5, -2.0, 0.25]) == (found.kind, found.embedding.tolist())


@pytest.mark.parametrize(
    ("numbers", "keys", "words"),
    [
        ([0.5, 1.2], {"output": "multi-label", "labels": ["a", "b"]}, "not probabilities"),
        ([0.5, 0.2], {"output": "sigmoid", "labels": ["a", "b"]}, "shape [2] a picture and has 2"),
        ([0.5, 0.2], {"output": "regression", "labels": []}, "is for output regression"),
        ([math.nan], {"output": "regression", "labels": []}, "not finite"),
        ([math.inf], {"output": "embedding", "labels": []}, "not finite"),
        ([], {"output": "embedding", "labels": []}, "shape [0] a picture"),
    ],
)
def test_wrong_numbers(numbers: list[float], keys: dict[str, Any], words: str) -> None:
    """Numbers that cannot be what model.toml says are refused."""
    with pytest.raises(FluxdropError) as caught:
        answer(numbers, **keys)

    assert words in caught.value.message
