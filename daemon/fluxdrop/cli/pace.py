"""How a generation gets on, in words."""

from __future__ import annotations


def pace(
    step: int, steps: int | None, steps_per_second: float | None, seconds_left: float | None
) -> str:
    """How far and how fast it is, in a few words; *steps* is None until it is known."""
    text = f"step {step} of {steps or '?'}"
    if steps_per_second and seconds_left is not None:
        text += f", {steps_per_second:.3g} it/s, {seconds_left:.0f} s left"
    return text
