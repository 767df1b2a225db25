"""Convert a model's raw output to its answer: probabilities, found labels, values or an embedding."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fluxdrop.predict.bundle import AnswerKind, Bundle
from fluxdrop.predict.classify import finite_numbers, label_probabilities


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one picture. What its *kind* does not have is empty."""

    kind: AnswerKind
    probabilities: dict[str, float] = field(default_factory=dict)
    """By label, in the model's order; of a classification and of several labels."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """By label: the probability from which it counts as found; of several labels."""
    values: dict[str, float] = field(default_factory=dict)
    """By name; of a regression."""
    units: dict[str, str] = field(default_factory=dict)
    """By name: the unit of a regression's value, empty if it has none."""
    embedding: NDArray[np.float32] | None = None
    """The vector [K] of an embedding."""

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The labels with their probabilities, the most probable first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])

    @property
    def found(self) -> list[str]:
        """The labels that reach their thresholds, the most probable first; none of a classification."""
        if not self.thresholds:
            return []
        return [label for label, p in self.ranked if p >= self.thresholds[label]]


def answer_of(raw: NDArray[np.float32], bundle: Bundle) -> Answer:
    """Return the answer in *raw* [K], one picture's output.

    Raises:
        FluxdropError: Kind ``model``, when *raw* is not what *bundle*'s model.toml says.
    """
    spec, kind = bundle.spec, bundle.spec.answer_kind
    if kind == "embedding":
        return Answer(kind, embedding=finite_numbers(raw, bundle).astype(np.float32))
    if kind == "regression":
        numbers = [float(number) for number in finite_numbers(raw, bundle)]
        values = dict(zip(spec.names, numbers, strict=True))
        return Answer(kind, values=values, units=dict(zip(spec.names, spec.units, strict=True)))
    probabilities = label_probabilities(raw, bundle)
    if kind == "classification":
        return Answer(kind, probabilities)
    limits = spec.thresholds * (len(spec.labels) if len(spec.thresholds) == 1 else 1)
    return Answer(kind, probabilities, dict(zip(spec.labels, limits, strict=True)))
