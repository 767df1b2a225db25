"""What ``fluxdrop model add`` tells of a model that was added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from fluxdrop.cli.options import print_json
from fluxdrop.predict.answer import Answer, answer_of
from fluxdrop.predict.library import AddedModel
from fluxdrop.predict.origin.trial import EQUAL, PREVIEWS, preview_name
from fluxdrop.printable import printable

_TOP = 5


def tell(added: AddedModel, warnings: Sequence[str]) -> None:
    """Print what was added, what it says of the pictures that it was tried on, and what was assumed."""
    bundle, info = added.bundle, added.engine
    _print(f"{bundle.name}: {bundle.spec.summary}; {_proof(added)}")
    if added.comparison is not None:
        _print(f"Compared: {added.comparison.told}.")
    by_source: dict[str, list[str]] = {}
    for key, source in bundle.spec.origin.items():
        by_source.setdefault(source, []).append(key)
    for source, keys in by_source.items():
        _print(f"{', '.join(keys)}: {source}")
    for number, trial in enumerate(added.trials, start=1):
        _print(f"{trial.name}: {_said(answer_of(trial.raw, bundle))}")
        _print(f"  seen: {bundle.folder / PREVIEWS / preview_name(number, trial)}")
    for warning in warnings:
        _print(f"Warning: {warning}.", err=True)
    if added.remark:
        _print(f"Note: {added.remark}.", err=True)
    if info.note:
        _print(f"Note: {info.note}.", err=True)
    _print(f"Use it with: fluxdrop model use {bundle.name}")


def tell_json(added: AddedModel, warnings: Sequence[str]) -> None:
    """Print the same as JSON."""
    bundle, info = added.bundle, added.engine
    answer: dict[str, Any] = {
        "name": bundle.name,
        "folder": str(bundle.folder),
        "labels": bundle.spec.labels,
        "output": bundle.spec.output,
        "origin": bundle.spec.origin,
        "warnings": list(warnings),
        "engine": info.engine,
        "backend": info.backend,
        "difference": _difference(added),
        "remark": added.remark,
        "comparison": added.comparison._asdict() if added.comparison else None,
        "tried": [
            {
                "picture": trial.name,
                "seen": str(bundle.folder / PREVIEWS / preview_name(number, trial)),
                **_first(answer_of(trial.raw, bundle)),
            }
            for number, trial in enumerate(added.trials, start=1)
        ],
    }
    print_json(answer)


def warnings_of(added: AddedModel, others: Sequence[str]) -> list[str]:
    """Return the sentences, without a full stop, about what may be wrong with what was added."""
    warnings = [*others, *added.notes]
    compared = added.comparison
    if compared is not None and compared.difference > EQUAL:
        warnings.append(
            f"its answers differ from those of {compared.original} by up to {compared.difference:.2g}"
        )
    return warnings


def _print(line: str, *, err: bool = False) -> None:
    """Print *line*, in which names may come from strangers."""
    typer.echo(printable(line), err=err)


def _difference(added: AddedModel) -> float | None:
    """Return the model's `difference`, or None if onnxruntime itself runs it as it is: nothing was compared."""
    return added.difference or (None if added.engine.engine == "onnxruntime" else added.difference)


def _proof(added: AddedModel) -> str:
    """Return what runs the model, and how its numbers compare with onnxruntime's."""
    info, difference = added.engine, _difference(added)
    runs = f"on {info.engine} ({info.backend})"
    if difference is None and info.engine == "onnxruntime":
        return "on onnxruntime"
    if difference is None:
        return f"{runs}; a native Flux model, which nothing can be compared with"
    if added.remark is None:
        return f"{runs} within {difference:.1e} of onnxruntime"
    percent = f"{100 * difference:.2g} %"
    return f"{runs}; its numbers differ from onnxruntime's by up to {percent} of the largest (see the note)"


def _said(answer: Answer) -> str:
    """Return *answer* in a line."""
    if answer.kind == "embedding" and answer.embedding is not None:
        return f"a vector of {len(answer.embedding)} numbers"
    if answer.kind == "regression":
        return ", ".join(
            f"{name} {value:.4g} {answer.units[name]}".rstrip()
            for name, value in answer.values.items()
        )
    return ", ".join(f"{label} {p:.4f}" for label, p in answer.ranked[:_TOP])


def _first(answer: Answer) -> dict[str, Any]:
    if answer.kind == "embedding":
        return {}
    if answer.kind == "regression":
        return {"values": answer.values}
    return {"probabilities": dict(answer.ranked[:_TOP])}
