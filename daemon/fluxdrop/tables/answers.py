"""The rows of a table before they have a form: the fixed cells of each answer, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from fluxdrop.records.result import Failure, Record, Result
from fluxdrop.tables.columns import NAMES, Answer, Cell, Facts, cells


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One label with its probability, or one value of a regression."""

    name: str
    p: float | None = None
    threshold: float | None = None
    """The probability from which a multi-label answer has the label."""
    is_found: bool | None = None
    """Whether a multi-label answer has the label; None for other kinds of answer."""
    value: float | None = None
    unit: str | None = None


class AnswerRow(msgspec.Struct, frozen=True, array_like=True):
    """One model's answer to one picture, or one failure."""

    fixed: list[Cell]
    """The cells of `fluxdrop.tables.columns.COLUMNS`."""
    items: list[Item]

    def is_of(self, model: str | None, label: str | None) -> bool:
        """Return whether it is the answer of *model* and has *label*; None stands for any."""
        if model is None and label is None:
            return True
        facts = dict(zip(NAMES, self.fixed, strict=True))
        found = facts["labels"]
        labels = found if isinstance(found, list) else [facts["label"]]
        return (model is None or facts["model"] == model) and (label is None or label in labels)


def answer_rows(record: Record, path: str) -> Iterator[AnswerRow]:
    """Yield the row of *record*, whose JSON lies at *path* below the root; one for each model that answered.

    Raises:
        FluxdropError: It has values that fluxdrop does not write; kind ``record``.
    """
    if isinstance(record, Failure):
        yield AnswerRow(cells(Facts(record, None, 1, path)), [])
        return
    for number, answer in enumerate(_answers(record), 1):
        yield AnswerRow(cells(Facts(record, answer, number, path)), list(_items(answer)))


def _answers(record: Result) -> Sequence[Answer]:
    """Return the answers of *record*: those of several models if it has them, else its own."""
    return record.predictions or [record]


def _items(answer: Answer) -> Iterator[Item]:
    is_multi = answer.kind == "multi-label"
    found = set(answer.labels)
    for label, p in answer.probabilities.items():
        threshold = answer.thresholds.get(label)
        yield Item(label, p, threshold, label in found if is_multi else None)
    for item in answer.values:
        yield Item(item.name, value=item.value, unit=item.unit or None)
