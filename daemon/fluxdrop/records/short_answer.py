"""A result's answer in a few words, for lists, the log and the gallery."""

from __future__ import annotations

from fluxdrop.records.result import PredictionFacts, Result

_MAX_VALUES = 3
_MAX_LABELS = 5


def labels_of(record: Result | PredictionFacts) -> list[str]:
    """Return the labels that the answer chose: the most probable class, or the labels that were found."""
    if record.kind == "multi-label":
        return record.labels
    return [record.top[0].label] if record.top else []


def short_answer(record: Result | PredictionFacts) -> str:
    """Return the chosen labels, the values or the dimension on one line."""
    labels = labels_of(record)
    more = ["..."] if len(labels) > _MAX_LABELS else []
    return ", ".join(labels[:_MAX_LABELS] + more) or value_text(record)


def value_text(record: Result | PredictionFacts) -> str:
    """Return a regression's values with their names and units, or an embedding's dimension; empty for labels."""
    if record.embedding is not None:
        return f"{record.embedding.dimension} numbers"
    shown = [f"{item.name} {item.value:.4g} {item.unit}".strip() for item in record.values]
    more = ["..."] if len(shown) > _MAX_VALUES else []
    return ", ".join(shown[:_MAX_VALUES] + more)
