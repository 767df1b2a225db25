"""Results of each kind of answer: their JSON, their row in the index, their card, and what a replay changed."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from fluxdrop.files.layout import Root
from fluxdrop.gallery.entry import Entry, entry_of, labels_shown
from fluxdrop.predict.answer import Answer
from fluxdrop.publish import outcome
from fluxdrop.publish.outcome import build_record
from fluxdrop.records import schema
from fluxdrop.records.drift import compare
from fluxdrop.records.index_row import row_of
from fluxdrop.records.job_files import files_of
from fluxdrop.records.result import Result, decode, encode
from fluxdrop.records.short_answer import short_answer
from support import jobs

VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema.FILE.read_bytes()))

CLASSES = Answer("classification", {"cat": 0.25, "dog": 0.75})
SEVERAL = Answer(
    "multi-label",
    {"red": 0.118, "round": 0.645, "big": 0.553},
    {"red": 0.5, "round": 0.5, "big": 0.5},
)
NOTHING = Answer("multi-label", {"red": 0.1}, {"red": 0.5})
VALUE = Answer("regression", values={"age": 37.25}, units={"age": "years"})
VECTOR = Answer("embedding", embedding=np.arange(4, dtype=np.float32))


def record(root: Root, answer: Answer, max_labels: int = 0) -> Result:
    """The result of a picture with this *answer*."""
    job = jobs.job_in(jobs.claimed(root, "cat.png"))
    job.sha256 = "0" * 64
    finished = outcome.done(job, jobs.picture(job), jobs.BUNDLE, jobs.ENGINE, answer, max_labels)
    made = build_record(finished, "cat")
    assert isinstance(made, Result)
    return made


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        (CLASSES, {"kind": "classification", "probabilities": {"cat": 0.25, "dog": 0.75}}),
        (
            SEVERAL,
            {"kind": "multi-label", "labels": ["round", "big"], "thresholds": SEVERAL.thresholds},
        ),
        (NOTHING, {"kind": "multi-label", "labels": [], "label_count": 1}),
        (
            VALUE,
            {
                "kind": "regression",
                "values": [{"name": "age", "value": 37.25, "unit": "years"}],
                "probabilities": {},
                "top": [],
            },
        ),
        (
            VECTOR,
            {
                "kind": "embedding",
                "embedding": {"file": "outputs/cat.npy", "dimension": 4},
                "label_count": None,
            },
        ),
    ],
)
def test_json(root: Root, answer: Answer, facts: dict[str, Any]) -> None:
    """The JSON of each kind has its fields, fits the schema, and is read again as it was written."""
    made = record(root, answer)
    found = json.loads(encode(made))

    assert facts == {key: found[key] for key in facts}
    assert 2 == found["schema_version"]
    assert [] == list(VALIDATOR.iter_errors(found))
    assert made == decode(encode(made))


def test_version_1(root: Root) -> None:
    """A result that an earlier fluxdrop wrote is read as a classification."""
    found = json.loads(encode(record(root, CLASSES)))
    later = ("kind", "label_count", "labels", "thresholds", "values", "embedding")
    earlier = {key: value for key, value in found.items() if key not in later}
    earlier["schema_version"] = 1

    read = decode(json.dumps(earlier).encode())

    assert isinstance(read, Result)
    assert ("classification", "dog") == (read.kind, short_answer(read))
    assert [] == list(VALIDATOR.iter_errors(earlier))


@pytest.mark.parametrize(("max_labels", "listed"), [(0, 1000), (1000, 1000), (3, 3)])
def test_many_labels(root: Root, max_labels: int, listed: int) -> None:
    """Of many labels the most probable ones are listed, in the model's order; `label_count` tells all."""
    values = {f"l{n}": ((n * 37) % 1000) / 1000 for n in range(1000)}
    made = record(root, Answer("classification", values), max_labels)

    best = sorted(values, key=lambda label: -values[label])
    assert sorted(best[:listed], key=list(values).index) == list(made.probabilities)
    assert (1000, best[:5]) == (made.label_count, [guess.label for guess in made.top])
    assert [list(values).index(label) for label in best[:5]] == [guess.index for guess in made.top]


@pytest.mark.parametrize(
    ("answer", "label", "p"),
    [
        (CLASSES, "dog", 0.75),
        (SEVERAL, "round\nbig", 0.645),
        (NOTHING, None, None),
        (VALUE, "age 37.25 years", None),
        (VECTOR, "4 numbers", None),
    ],
)
def test_index_row(root: Root, answer: Answer, label: str | None, p: float | None) -> None:
    """The index has the found labels, a line each, or the value in a few words."""
    row = row_of(record(root, answer), "outputs/cat.json")

    assert (label, p) == (row.label, row.probability)


def card(root: Root, answer: Answer) -> Entry:
    """The gallery's entry of a result with this *answer*."""
    return entry_of(record(root, answer), "cat.json", "picture")


@pytest.mark.parametrize(
    ("answer", "labels", "value"),
    [
        (CLASSES, ["dog"], ""),
        (SEVERAL, ["round", "big"], ""),
        (NOTHING, [], ""),
        (VALUE, [], "age 37.25 years"),
        (VECTOR, [], "4 numbers"),
    ],
)
def test_card(root: Root, answer: Answer, labels: list[str], value: str) -> None:
    """A card is counted under each label that was found, and shows values and dimensions."""
    entry = card(root, answer)

    assert (labels, value) == (labels_shown(entry), entry.value)
    assert (answer is VECTOR) == entry.vector


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (SEVERAL, SEVERAL, "same"),
        (
            SEVERAL,
            Answer("multi-label", {**SEVERAL.probabilities, "red": 0.2}, SEVERAL.thresholds),
            "by 8.2e-02",
        ),
        (
            SEVERAL,
            Answer("multi-label", SEVERAL.probabilities, {**SEVERAL.thresholds, "red": 0.1}),
            "other thresholds",
        ),
        (VALUE, Answer("regression", values={"age": 37.251}, units={"age": "years"}), "same"),
        (VALUE, Answer("regression", values={"age": 38.25}, units={"age": "years"}), "by 1.0e+00"),
        (
            VALUE,
            Answer("regression", values={"age": 37.25}, units={"age": "days"}),
            "other names or units",
        ),
        (VALUE, CLASSES, "regression, now classification"),
        (VECTOR, VECTOR, "same"),
        (VECTOR, Answer("embedding", embedding=np.array([0, 1, 2, 4], np.float32)), "by 1.0e+00"),
        (VECTOR, Answer("embedding", embedding=np.arange(5, dtype=np.float32)), "other shape"),
    ],
)
def test_drift(root: Root, before: Answer, after: Answer, said: str) -> None:
    """A replay is compared by what its kind of answer has."""
    for name, answer in (("a", before), ("b", after)):
        np.save(root.preprocessed / f"{name}.npy", np.zeros(1, np.float32))
        if answer.embedding is not None:
            np.save(root.outputs / f"{name}.npy", answer.embedding)

    earlier = record(root, before)
    later = msgspec.structs.replace(record(root, after), image=earlier.image)
    drift = compare(root, earlier, "outputs/a.json", later, "outputs/b.json", 1e-4)

    assert said == drift.probabilities
    assert ("same" if said == "same" else "drifted") == drift.verdict


@pytest.mark.parametrize(
    ("changed", "said"),
    [({}, "same"), ({"c": 0.13, "d": 0.15}, "same"), ({"c": 0.05, "d": 0.3}, "by 1.5e-01")],
)
def test_drift_of_many_labels(root: Root, changed: dict[str, float], said: str) -> None:
    """Where records list only the best labels, one that left the list counts by how far it must have moved."""
    values = {"a": 0.4, "b": 0.3, "c": 0.15, "d": 0.15, "e": 0.0}
    before = record(root, Answer("classification", values), 3)
    after = record(root, Answer("classification", values | changed), 3)
    np.save(root.preprocessed / "a.npy", np.zeros(1, np.float32))

    drift = compare(root, before, "outputs/a.json", after, "outputs/a.json", 0.02)

    assert said == drift.probabilities


@pytest.mark.parametrize(("other", "said"), [("e", "same"), ("f", "other labels")])
def test_drift_from_version_1(root: Root, other: str, said: str) -> None:
    """A result of version 1, which lists all labels, is compared with one that lists the best ones."""
    values = {"a": 0.4, "b": 0.3, "c": 0.15, "d": 0.15, "e": 0.0}
    before = msgspec.structs.replace(
        record(root, Answer("classification", values)), schema_version=1, label_count=None
    )
    now = {"a": 0.15, "b": 0.15, "c": 0.15, "d": 0.15, "e": 0.4} if other == "f" else values
    renamed = {other if label == "e" else label: p for label, p in now.items()}
    after = record(root, Answer("classification", renamed), 3)
    np.save(root.preprocessed / "a.npy", np.zeros(1, np.float32))

    drift = compare(root, before, "outputs/a.json", after, "outputs/a.json", 1e-4)

    assert said == drift.probabilities


def test_files(root: Root) -> None:
    """The vector is among a job's files, beside the picture; other kinds have none."""
    files = files_of(root, "outputs/sub/cat.json", record(root, VECTOR))

    assert root.outputs / "sub/cat.npy" == files["embedding"]
    assert "embedding" not in files_of(root, "outputs/cat.json", record(root, VALUE))
