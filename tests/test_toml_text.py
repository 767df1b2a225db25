"""Values as they are written in TOML."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.predict.library import spec_text
from fluxdrop.toml_text import toml_value

# Surrogates are in no TOML file, and none reads integers of more than 64 bits.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False),
    lambda parts: st.dictionaries(TEXTS, parts),
)


@given(VALUES | st.lists(TEXTS | st.integers(-9, 9)))
def test_read_back(value: Any) -> None:
    """What is written is read as the same value, on one line."""
    text = toml_value(value)

    assert value == tomllib.loads(f"x = {text}")["x"]
    assert "\n" not in text


@pytest.mark.parametrize("label", ["\U0001f408 cat", "Bär", 'a "b"', "\x7f"])
def test_labels(label: str) -> None:
    """A label with any characters is in model.toml as it was given."""
    text = spec_text({"labels": [label]}, {"size": [8, 6], "scale": 15.9375})

    assert {"labels": [label], "input": {"size": [8, 6], "scale": 15.9375}} == tomllib.loads(text)
