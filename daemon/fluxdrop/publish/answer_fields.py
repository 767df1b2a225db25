"""What a record says of a model and of its answer."""

from __future__ import annotations

from typing import Any

from fluxdrop.predict.answer import Answer
from fluxdrop.predict.bundle import Bundle
from fluxdrop.predict.engine import EngineInfo
from fluxdrop.records.result import EmbeddingFacts, Guess, ModelFacts, Value

_MAX_GUESSES = 5


def model_facts(bundle: Bundle, engine: EngineInfo) -> ModelFacts:
    """Return what a record says of *bundle*, run by *engine*."""
    return ModelFacts(
        bundle=bundle.name,
        sha256=bundle.sha256,
        engine=engine.engine,
        julia=engine.version if engine.backend != "onnxruntime" else None,
        flux=engine.flux,
        backend=engine.backend,
        device=engine.device,
        note=engine.note,
    )


def answer_fields(answer: Answer, max_labels: int, embedding_path: str) -> dict[str, Any]:
    """Return the fields of `Result` and `Prediction` that hold *answer*.

    Args:
        answer: What the model says.
        max_labels: How many labels are listed at most, the most probable; 0 for all.
        embedding_path: Where an embedding is published, below the root.
    """
    indices = {label: index for index, label in enumerate(answer.probabilities)}
    ranked = answer.ranked
    listed = {label for label, _ in ranked[: max_labels or None]}
    return {
        "probabilities": _only(answer.probabilities, listed),
        "top": [
            Guess(label=label, index=indices[label], p=p) for label, p in ranked[:_MAX_GUESSES]
        ],
        "kind": answer.kind,
        "label_count": len(answer.probabilities) or None,
        "labels": answer.found[: max_labels or None],
        "thresholds": _only(answer.thresholds, listed),
        "values": [
            Value(name=name, value=value, unit=answer.units[name])
            for name, value in answer.values.items()
        ],
        "embedding": None
        if answer.embedding is None
        else EmbeddingFacts(file=embedding_path, dimension=len(answer.embedding)),
    }


def _only(numbers: dict[str, float], labels: set[str]) -> dict[str, float]:
    return {label: number for label, number in numbers.items() if label in labels}
