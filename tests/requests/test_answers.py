"""The answers to requests: how long they are kept, and what a full disk does to them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.requests import answers
from fluxdrop.requests.answers import Answers
from fluxdrop.requests.messages import Answer, answer_to

ERROR = FluxdropError("There is no job x", hint="Look at fluxdrop jobs.", kind="no-job")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of seconds that goes on only when the test sets it."""
    made = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(answers, "time", SimpleNamespace(monotonic=lambda: made.seconds))
    return made


def names(root: Root) -> list[str]:
    """The files with answers."""
    return sorted(path.name for path in root.answers.iterdir())


def test_what_is_answered(root: Root) -> None:
    """A request that was done has an empty answer, and one that was refused the error; a path that is no UTF-8 is
    printable in it."""
    found = Answers(root.answers)
    found.write("done", None)
    found.write("refused", ERROR)
    found.write("odd", FluxdropError(os.fsdecode(b"caf\xe9 is gone"), kind="replay"))
    odd = answer_to(root, "odd")

    assert Answer() == answer_to(root, "done")
    assert Answer(ERROR.kind, ERROR.message, ERROR.hint) == answer_to(root, "refused")
    assert odd is not None
    assert odd.message.isprintable()


def test_answers_of_an_earlier_daemon(root: Root) -> None:
    """Answers of an earlier daemon are removed: whoever waits for one knows that it ended."""
    Answers(root.answers).write("old", None)
    Answers(root.answers)

    assert [] == names(root)


def test_old_answers(root: Root, clock: SimpleNamespace) -> None:
    """An answer is kept for ten minutes, whether it was read or not; one that is gone already is no error."""
    found = Answers(root.answers)
    found.write("a", None)
    found.write("gone", None)
    (root.answers / "gone.json").unlink()
    clock.seconds += 300
    found.write("b", None)
    clock.seconds += 300
    found.forget_old()
    kept = names(root)
    clock.seconds += 1
    found.forget_old()

    assert ["a.json", "b.json"] == kept
    assert ["b.json"] == names(root)


def test_many_answers(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many answers the oldest are removed before their time."""
    monkeypatch.setattr(answers, "_MAX_KEPT", 3)
    found = Answers(root.answers)
    for number in range(5):
        found.write(f"{number}", None)
    found.forget_old()

    assert ["2.json", "3.json", "4.json"] == names(root)


def test_full_disk(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that a full disk does not take are written when there is room, in their order and once."""
    written: list[str] = []
    write, room = durable.write, 0

    def write_if_room(path: Path, data: bytes, *, sync: bool = True) -> None:
        if len(written) >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path.stem)
        write(path, data, sync=sync)

    monkeypatch.setattr(durable, "write", write_if_room)
    found = Answers(root.answers)
    for name in ("a", "b", "c"):
        found.write_or_keep(name, ERROR)
    room = 2
    with pytest.raises(OSError, match="No space"):
        found.write_pending()
    room = 9
    found.write_pending()
    found.write_pending()

    assert ["a", "b", "c"] == written
    assert ["a.json", "b.json", "c.json"] == names(root)
