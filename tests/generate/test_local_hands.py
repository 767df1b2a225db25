"""The hands of this machine: each run that is begun has one outcome."""

from __future__ import annotations

from typing import cast

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.hands import Died, Hands, HostLost, Made, Refused, Run
from fluxdrop.generate.local_hands import LocalHands
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.processes.child import ChildDied
from support.fakes import FakeGenerator, full

RUN = Run("a-1", [GenerationOrder(PromptParameters(prompt=text, seed=1)) for text in ("a", "b")])


def hands_of(generator: FakeGenerator) -> Hands:
    """Hands that work with *generator*."""
    return LocalHands(cast(Generator, generator))


def test_made(png: bytes) -> None:
    """There is room for one run, which is made when its outcome is asked for, with its steps told; then there is room
    again."""
    generator, steps = FakeGenerator(png), list[object]()
    hands = hands_of(generator)
    rooms = [hands.room]
    hands.begin(RUN)
    rooms.append(hands.room)
    not_yet = list(generator.runs)

    (outcome,) = hands.finished(0, lambda *step: steps.append(step))
    nothing = hands.finished(0, lambda *_step: None)

    assert isinstance(outcome, Made)
    assert ("a-1", [png, png], None) == (
        outcome.run,
        [image.png for image in outcome.images],
        outcome.host,
    )
    assert ([], [["a", "b"]], [("a-1", 1, 2)], []) == (not_yet, generator.runs, steps, nothing)
    assert ([1, 0], 1, 1) == (rooms, hands.room, hands.slots)
    assert ([], None, 4711) == (hands.hosts(), hands.outage, hands.pid)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ChildDied("it ended"), Died), (FluxdropError("no", kind="memory"), Refused)],
)
def test_failed(png: bytes, error: FluxdropError, outcome: type[Died | Refused]) -> None:
    """A generator's death and its refusal are outcomes of the run, and another run can be begun."""
    generator = FakeGenerator(png)
    generator.fail_with(error)
    hands = hands_of(generator)
    hands.begin(RUN)

    found = hands.finished(0, lambda *_step: None)

    assert [outcome("a-1", error)] == found  # type: ignore[arg-type]
    assert 1 == hands.room


def test_no_outcome(png: bytes) -> None:
    """What is no fault of the run is raised, and the run is gone; so it is if the hands are closed before."""
    generator = FakeGenerator(png)
    generator.fail_with(full())
    hands = hands_of(generator)
    hands.begin(RUN)
    with pytest.raises(OSError, match="No space left"):
        hands.finished(0, lambda *_step: None)
    hands.begin(RUN)
    hands.close()

    assert [] == hands.finished(0, lambda *_step: None)
    assert ([["a", "b"]], 1) == (generator.runs, generator.closes)


def test_several_die(png: bytes) -> None:
    """If the generator dies over several runs, none is blamed; until as many have ended well, runs are made one at a
    time, so that a death is the fault of its run."""
    generator = FakeGenerator(png)
    generator.slots = 2
    generator.fail_with(ChildDied("it ended"), ChildDied("again"))
    hands = hands_of(generator)
    rooms = [hands.room]
    for name in "ab":
        hands.begin(RUN._replace(id=name))
    rooms.append(hands.room)

    lost = hands.finished(0, lambda *_step: None)
    alone = list[type]()
    for name in "abab":
        rooms.append(hands.room)
        hands.begin(RUN._replace(id=name))
        rooms.append(hands.room)
        alone += map(type, hands.finished(0, lambda *_step: None))

    assert [HostLost("a", "", "it ended."), HostLost("b", "", "it ended.")] == lost
    assert [Died, Made, Made, Made] == alone
    assert [2, 0, 1, 0, 1, 0, 1, 0, 2, 1] == rooms


def test_one_of_several_dies(png: bytes) -> None:
    """A run that the process died over that made it is Died; what is made beside it goes on."""
    generator = FakeGenerator(png)
    generator.slots = 2
    hands = hands_of(generator)
    for name in "ab":
        hands.begin(RUN._replace(id=name))
    generator.lose_next(ChildDied("a process of it ended"))

    outcomes = [*hands.finished(0, lambda *_step: None), *hands.finished(0, lambda *_step: None)]

    assert [("a", Died), ("b", Made)] == [(outcome.run, type(outcome)) for outcome in outcomes]
    assert 2 == hands.room
