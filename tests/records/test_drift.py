"""Whether a replay came to the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fluxdrop.files.layout import Root
from fluxdrop.publish.outcome import build_record
from fluxdrop.records.drift import Drift, compare, failed_unread
from fluxdrop.records.result import ErrorFacts, Failure, Record, Result
from support import jobs
from support.gallery_records import on_host

TENSOR = np.arange(4, dtype=np.float32)


def record(root: Root, *, failed: bool = False) -> Record:
    """A job's record."""
    job = jobs.job_in(jobs.claimed(root, "cat.png"))
    finished = jobs.failed(job) if failed else jobs.done(job)
    return build_record(finished, "cat")


def compared(
    root: Root, after: Record, tensor: object = TENSOR, before: Record | None = None
) -> Drift:
    """What is different in *after*, whose tensor is *tensor*."""
    np.save(root.preprocessed / "a.npy", TENSOR)
    if tensor is not None:
        np.save(root.preprocessed / "b.npy", np.asarray(tensor))
    before = before or record(root)
    return compare(root, before, "outputs/a.json", after, "outputs/b.json", 1e-4)


def with_probabilities(after: Record, **probabilities: float) -> Result:
    """*after* with other probabilities."""
    assert isinstance(after, Result)
    return msgspec.structs.replace(after, probabilities=probabilities)


@pytest.fixture
def before(root: Root) -> Result:
    """What is compared with."""
    made = record(root)
    assert isinstance(made, Result)
    return made


@pytest.mark.parametrize(
    ("stage", "kind", "expected"),
    [
        ("intake", "unknown", True),
        ("intake", "unreadable", True),
        ("publish", "incomplete", True),
        ("preprocess", "picture", False),
    ],
)
def test_failed_unread(root: Root, stage: str, kind: str, expected: bool) -> None:
    """Only a job that failed by its file's name, rights or end failed unread; one that is done did not."""
    failure = record(root, failed=True)
    assert isinstance(failure, Failure)
    error = msgspec.convert(
        msgspec.to_builtins(failure.error) | {"stage": stage, "kind": kind}, ErrorFacts
    )

    assert expected == failed_unread(msgspec.structs.replace(failure, error=error))
    assert not failed_unread(record(root))


def test_same(root: Root, before: Result) -> None:
    """What is less different than the tolerance is the same."""
    after = with_probabilities(before, angular=0.25003, round=0.74997)

    assert Drift("same", "same", "same", "same", "same") == compared(root, after, before=before)


def test_a_picture_that_was_converted(root: Root, before: Result) -> None:
    """A picture that an earlier fluxdrop converted is the same as the dropped file that a replay keeps as it is."""
    image = msgspec.structs.replace(before.image, sha256="0" * 64)
    converted = msgspec.structs.replace(before, image=image)

    assert "same" == compared(root, before, before=converted).image
    assert "other bytes" == compared(root, converted, before=before).image


def test_other_class_of_host(root: Root) -> None:
    """That hosts of two classes generated the pictures is said; so it is not of pictures that were dropped, nor of one
    class."""
    before = build_record(jobs.done(jobs.job_in(jobs.claimed(root, "cat.txt"))), "cat")
    dropped = record(root)
    assert isinstance(before, Result)
    assert isinstance(dropped, Result)
    by_host = on_host(before, "gpu-1")
    pairs = [(before, by_host), (by_host, by_host), (dropped, by_host), (before, before)]

    assert [True, False, False, False] == [
        compared(root, after, before=first).other_class for first, after in pairs
    ]


def test_other_scale(root: Root, before: Result) -> None:
    """That a JPEG was decoded smaller than before, or no longer is, is said beside what differs."""
    smaller = msgspec.structs.replace(
        before, preprocessed=msgspec.structs.replace(before.preprocessed, jpeg_scale=8)
    )
    pairs = [(before, smaller), (smaller, before), (smaller, smaller), (before, before)]

    assert [True, True, False, False] == [
        compared(root, after, before=first).other_scale for first, after in pairs
    ]
    assert "drifted" == compared(root, smaller, TENSOR + np.float32(0.01), before).verdict


def test_other_image(root: Root, before: Result) -> None:
    """Other bytes of the picture are a drift."""
    after = msgspec.structs.replace(
        before, image=msgspec.structs.replace(before.image, sha256="0" * 64)
    )

    drift = compared(root, after, before=before)

    assert ("drifted", "other bytes", "same") == (drift.verdict, drift.image, drift.tensor)


@pytest.mark.parametrize(
    ("tensor", "verdict", "said"),
    [
        (TENSOR + np.float32(0.5), "drifted", "by 5.0e-01"),
        (TENSOR[:2], "drifted", "other shape"),
        (TENSOR.astype(np.float64), "drifted", "other shape"),
        (None, "unknown", "gone"),
    ],
)
def test_tensors(root: Root, before: Result, tensor: object, verdict: str, said: str) -> None:
    """A tensor that is different in any number is a drift; one that is gone cannot be compared."""
    drift = compared(root, before, tensor, before)

    assert (verdict, said) == (drift.verdict, drift.tensor)


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ({"angular": 0.2, "round": 0.8}, "by 5.0e-02"),
        ({"oval": 0.25, "round": 0.75}, "other labels"),
    ],
)
def test_probabilities(
    root: Root, before: Result, probabilities: dict[str, float], said: str
) -> None:
    """Probabilities beyond the tolerance, and other labels, are a drift."""
    drift = compared(root, with_probabilities(before, **probabilities), before=before)

    assert ("drifted", said) == (drift.verdict, drift.probabilities)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "said"),
    [
        (True, True, "same", "same"),
        (True, False, "drifted", "failed at intake (incomplete), now done"),
        (False, True, "drifted", "done, now failed at intake (incomplete)"),
    ],
)
def test_outcomes(root: Root, first: bool, second: bool, verdict: str, said: str) -> None:
    """A job that fails as it did before is the same; one that ends otherwise has drifted."""
    drift = compared(root, record(root, failed=second), before=record(root, failed=first))

    assert (verdict, said) == (drift.verdict, drift.outcome)


def test_no_tensor(root: Root, before: Result, tmp_path: Path) -> None:
    """A file that is no tensor is no crash."""
    (root.preprocessed / "b.npy").write_bytes(b"text")

    assert ("drifted", "unreadable") == compared(root, before, None, before)[:3:2]
