"""The names that results are given."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.publish.names import NameChooser, portable
from fluxdrop.publish.similar_names import folded


def free(_name: str) -> bool:
    return False


def choose(source: str, *taken: str, keeps_suffix: bool = False) -> str:
    return NameChooser().choose(source, set(taken).__contains__, free, keeps_suffix=keeps_suffix)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1)
parts = names.filter(lambda name: name not in (".", ".."))
sources = st.lists(parts, min_size=1, max_size=3).map("/".join)


@given(st.lists(st.tuples(sources, st.booleans()), max_size=8))
def test_names_differ_and_fit(given_sources: list[tuple[str, bool]]) -> None:
    """Whatever is dropped, no two names are the same and none is too long for a file's name."""
    chooser = NameChooser()

    chosen = [
        chooser.choose(source * 40, free, free, keeps_suffix=keeps)
        for source, keeps in given_sources * 2
    ]

    assert len(chosen) == len({folded(name) for name in chosen})
    longest = "-99999.error.json"
    assert [] == [name for name in chosen for part in name.split("/") if len(part.encode()) > 255]
    assert [] == [
        name for name in chosen if len((PurePosixPath(name).name + longest).encode()) > 261
    ]


def test_counts_on_past_taken_names() -> None:
    """A name is free when neither a file nor another job of this run has it."""
    chooser = NameChooser()
    taken = {"cat", "cat-3"}

    chosen = [chooser.choose("cat.png", taken.__contains__, free) for _ in range(3)]

    assert ["cat-2", "cat-4", "cat-5"] == chosen


def test_released_name_is_given_again() -> None:
    """A name whose files never came can be given again once it is released."""
    chooser = NameChooser()
    first = chooser.choose("cat.png", free, free)
    chooser.release(first)

    assert first == chooser.choose("cat.png", free, free)


def test_each_equal_name_costs_one_look() -> None:
    """The thousandth equal name is not looked for from the beginning."""
    looked: list[str] = []
    chooser = NameChooser()

    def is_taken(name: str) -> bool:
        looked.append(name)
        return False

    for _ in range(1000):
        chooser.release(chooser.choose("cat.png", is_taken, free))

    assert 1000 == len(looked)


def test_suffix_is_kept_behind_the_number() -> None:
    """A name that keeps its suffix has the number before it."""
    assert "a/cat.v1-2.png" == choose("a/cat.v1.png", "a/cat.v1.png", keeps_suffix=True)


def test_blocked_folders() -> None:
    """Each part of a path that something else has is numbered, and the parts below it follow."""
    blocked = {"a", "a-2", "a-3/b"}

    name = NameChooser().choose("a/b/cat.png", free, blocked.__contains__)

    assert "a-3/b-2/cat" == name


@given(sources)
def test_plain_names(source: str) -> None:
    """A plain name has as many parts as its source, each of few characters that every filesystem takes."""
    parts = portable(source).split("/")

    assert len(source.split("/")) == len(parts)
    assert [] == [part for part in parts if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", part)]
    assert [] == [part for part in parts if len(part) > 140 or part.endswith(".")]


def test_plain_names_keep_what_is_plain() -> None:
    """What is plain already stays as it is; what Windows keeps for devices does not."""
    assert "sub/cat-2.v1.png" == portable("sub/cat-2.v1.png")
    assert ["_aux.png", "_Com1.txt", "_nul"] == [
        portable(n) for n in ("aux.png", "Com1.txt", "nul")
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("A.txt", "a.txt", ["A", "a-2"]),
        ("caf\u00e9.txt", "cafe\u0301.txt", ["caf\u00e9", "cafe\u0301-2"]),
        ("\u00c9.png", "e\u0301.png", ["\u00c9", "e\u0301-2"]),
        ("cats/a.png", "cats/A.png", ["cats/a", "cats/A-2"]),
        ("Failed/a.png", "By-Label/a.png", ["Failed-2/a", "By-Label-2/a"]),
    ],
)
def test_equal_on_a_share(first: str, second: str, expected: list[str]) -> None:
    """Names and folders that differ in capitals or in the form of an accent alone do not both get their own."""
    chooser = NameChooser()

    assert expected == [chooser.choose(source, free, free) for source in (first, second)]
