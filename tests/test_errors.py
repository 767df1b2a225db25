"""What a person reads when something is wrong."""

from __future__ import annotations

import pytest

from fluxdrop.errors import FluxdropError


@pytest.mark.parametrize("message", ["the disk is full", "the disk is full.", " the disk is full "])
def test_message_is_a_sentence(message: str) -> None:
    """A message ends as a sentence does, whoever wrote it; a hint may be a command, so it is left."""
    error = FluxdropError(message, hint="rm -r /tmp/cache", kind="disk")

    assert "the disk is full. rm -r /tmp/cache" == str(error)
    assert "disk" == error.kind


def test_without_a_hint() -> None:
    """An error without a hint is its message alone."""
    assert "Is there a disk?" == str(FluxdropError("Is there a disk?"))
