"""Pictures sorted into folders by their labels."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from fluxdrop.config.tables import SortByLabel
from fluxdrop.files.layout import Root
from fluxdrop.predict.answer import Answer
from fluxdrop.publish.by_label import label_folder, sort_by_label
from fluxdrop.publish.outcome import Finished
from fluxdrop.records.outputs import records as scanned
from fluxdrop.records.result import Result
from support import jobs
from support.published import contents, in_child, publish, publishing, records

CLASSES = Answer("classification", {"angular": 0.25, "round": 0.75})
FOUND = Answer("multi-label", {"a": 0.6, "b": 0.9, "c": 0.1}, dict.fromkeys("abc", 0.5))


def finished(root: Root, source: str, answer: Answer, how: SortByLabel = "link") -> Finished:
    """The job of a new input *source*, come through with *answer*."""
    job = jobs.job_in(jobs.claimed(root, source))
    return sorted_again(job.folder, answer, how)


def sorted_again(folder: Path, answer: Answer, how: SortByLabel) -> Finished:
    """The job in *folder* come through with *answer*."""
    job = jobs.job_in(folder)
    picture = job.image if job.kind == "prompt" else job.input
    return sort_by_label(jobs.done(job), picture, answer, how)


def by_label(root: Root) -> list[str]:
    """The paths below outputs/by-label/."""
    start = "outputs/by-label/"
    return sorted(path.removeprefix(start) for path in contents(root) if path.startswith(start))


def test_link(root: Root) -> None:
    """A picture is below the folder of its most probable label by the NAME of its result, which two of one name do not
    share; it is the picture itself, and no scan takes it for a result."""
    batch = [finished(root, source, CLASSES) for source in ("cat.png", "sub/cat.txt", "cat.png")]

    publish(root, batch)

    assert ["round/cat-2.png", "round/cat.png", "round/sub/cat.png"] == by_label(root)
    assert (root.outputs / "by-label/round/sub/cat.png").samefile(root.outputs / "sub/cat.png")
    assert sorted(records(root)) == sorted(path for _, path in scanned(root))


def test_copy(root: Root) -> None:
    """A copy can be changed, and the result's picture stays as it is."""
    publish(root, [finished(root, "cat.png", FOUND, "copy")])
    (root.outputs / "by-label/b/cat.png").write_text("changed")

    assert ["a/cat.png", "b/cat.png"] == by_label(root)
    text = (root.outputs / "cat.png").read_text()
    assert text == (root.outputs / "by-label/a/cat.png").read_text() != "changed"


@pytest.mark.parametrize(
    "answer",
    [
        Answer("regression", values={"age": 4.0}),
        Answer("multi-label", {"a": 0.1}, {"a": 0.5}),
    ],
)
def test_no_label(root: Root, answer: Answer) -> None:
    """An answer that names no label puts the picture nowhere."""
    publish(root, [finished(root, "cat.png", answer)])

    assert [] == by_label(root)


def test_many_labels(root: Root) -> None:
    """Of very many labels the hundred most probable have the picture, which the result says."""
    many = {f"label {number}": 1 - number / 1000 for number in range(150)}

    publish(root, [finished(root, "a.png", Answer("multi-label", many, dict.fromkeys(many, 0.5)))])

    assert {f"{label}/a.png" for label in list(many)[:100]} == set(by_label(root))
    (record,) = records(root).values()
    assert isinstance(record, Result)
    assert "the 100 most probable of its 150 labels" in record.warnings[0]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cat", "cat"),
        ("größe 10 µm", "größe 10 µm"),
        ("n/a", "n_a~"),
        ("..", "_~"),
        (".hidden", "_hidden~"),
        ("", "_~"),
        ("  dot. ", "dot~"),
        ("con", "_con~"),
        ("LPT1.txt", "_LPT1.txt~"),
        ('a<b>:"c"|?*\\', "a_b___c_____~"),
        ("a\nb\x00\u202e", "a_b__~"),
        ("e\u0301", "é~"),
        ("x" * 300, "x" * 100 + "~"),
        ("é" * 100, "é" * 50 + "~"),
    ],
)
def test_folder_names(label: str, name: str) -> None:
    """A label's folder has a name that Linux, Windows and macOS take; one that differs from the label ends with digits
    of its own, so that no two labels share a folder."""
    folder = label_folder(label)

    assert name == (folder[:-6] if name.endswith("~") else folder)
    assert len(folder.encode()) < 128
    assert label_folder("a/b") != label_folder("a?b")


def test_labels_that_differ_in_case(root: Root) -> None:
    """The classes A and a have folders that Windows tells apart."""
    letters = Answer("multi-label", {"A": 0.9, "a": 0.8, "b": 0.7}, dict.fromkeys("Aab", 0.5))

    publish(root, [finished(root, "x.png", letters)])

    folders = {path.partition("/")[0].casefold() for path in by_label(root)}
    assert 3 == len(folders)
    assert "b" in folders


def test_something_else_is_there(root: Root) -> None:
    """Where a file has the name of a label's folder, the result is published without, and says so."""
    (root.outputs / "by-label").mkdir()
    (root.outputs / "by-label/round").write_text("mine")

    publish(root, [finished(root, "cat.png", CLASSES)])

    (record,) = records(root).values()
    assert isinstance(record, Result)
    assert ["It could not be put into outputs/by-label/."] == record.warnings
    assert "mine" == (root.outputs / "by-label/round").read_text()


def test_a_subfolder_of_that_name(root: Root) -> None:
    """Results of inbox/by-label/ are not mixed with the sorted pictures."""
    assert ["by-label-2/cat.json"] == publish(root, [finished(root, "by-label/cat.png", CLASSES)])


@pytest.mark.parametrize("how", ["link", "copy"])
def test_kill(root: Root, how: SortByLabel) -> None:
    """Killed before any of its links, the next start publishes the job once, in each place once."""
    for call in range(1, 8):
        made = finished(root, f"{call}.png", FOUND, how)

        def die(made: Finished = made, call: int = call) -> int:
            calls = iter(range(1, 100))

            def hook(event: str, _: object) -> None:
                if event == "os.link" and next(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            return len(publish(root, [made]))

        assert in_child(die) in (1, -signal.SIGKILL)
        with publishing(root) as publisher:
            folders = [path for path in root.work.iterdir() if not publisher.remove_if_ended(path)]
            plans = [(path, plan) for path in folders if (plan := publisher.planned(path))]
            publisher.perform(plans)
            for folder in root.work.iterdir():
                publisher.publish([sorted_again(folder, FOUND, how)])

        assert [f"a/{call}.png", f"b/{call}.png"] == [
            path for path in by_label(root) if path.endswith(f"/{call}.png")
        ]
    assert 7 == len(records(root))
    assert 14 == len(by_label(root))
