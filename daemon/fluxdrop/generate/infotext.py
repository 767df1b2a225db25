"""Infotext: the text that AUTOMATIC1111's stable-diffusion-webui writes into a picture's metadata.

It has the prompt's lines, then ``Negative prompt: ...``, then one line ``Steps: 20, Sampler: Euler a,
CFG scale: 7, Seed: 42, Size: 512x512``. The format has no specification. It is defined by what
stable-diffusion-webui's ``modules/infotext_utils.py`` reads (``parse_generation_parameters``,
``quote``) and what its ``modules/processing.py`` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fluxdrop.generate.parameter_lines import NEGATIVE, Pair, divide
from fluxdrop.generate.parameter_values import format_number, quote, read_values
from fluxdrop.generate.parameters import (
    BATCH_SIZES,
    RANGES,
    UNLIMITED,
    GenerationParameters,
    PromptParameters,
    check,
)
from fluxdrop.generate.sampler_names import our_name


class Description(NamedTuple):
    """How a picture was or is to be generated, as a program says it."""

    prompt: str
    negative_prompt: str
    pairs: list[Pair]
    """Infotext's keys with their values, not quoted; also keys that are not used, to be named in a warning."""
    no_negative_prompt: bool = False
    """Whether the negative prompt is said to be empty."""

    def infotext(self) -> str:
        """Return the description as infotext."""
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"{NEGATIVE} {self.negative_prompt}")
        lines.append(", ".join(f"{key}: {quote(value)}" for key, value in self._usual_pairs()))
        return "\n".join(lines)

    def _usual_pairs(self) -> list[Pair]:
        """Return the pairs with the size in one, and the sampler by our name."""
        given = dict(self.pairs)
        merged = {"Height"} if "Width" in given else set()
        merged |= {"Schedule type"} if "Sampler" in given else set()
        usual = []
        for key, value in self.pairs:
            if key == "Width" and "Height" in given:
                usual.append(("Size", f"{value}x{given['Height']}"))
            elif key == "Sampler":
                usual.append((key, our_name(value, given.get("Schedule type", ""))))
            elif key not in merged:
                usual.append((key, value))
        return usual


class PromptBatch(NamedTuple):
    """What an infotext asks for: *size* pictures, of which the first has *parameters*."""

    parameters: PromptParameters
    size: int
    warnings: list[str]


def parse_infotext(text: str) -> tuple[PromptParameters, list[str]]:
    """Parse the infotext of one picture, and ignore the batch size.

    Returns:
        The parameters and the warnings of `parse_batch`.

    Raises:
        FluxdropError: As `parse_batch` does.
    """
    parameters, _size, warnings = parse_batch(text)
    return parameters, warnings


def parse_batch(text: str, max_size: int = UNLIMITED, max_steps: int = UNLIMITED) -> PromptBatch:
    """Parse an infotext; the warnings name everything that is not used.

    `parameter_lines.divide` says which lines hold the parameters.

    Args:
        text: The infotext.
        max_size: The limit of the batch size in the settings. Only errors use it, to name the range that applies.
        max_steps: The limit of the steps in the settings, for errors, too.

    Raises:
        FluxdropError: Kind ``prompt``, when the prompt is empty or a value is invalid.
    """
    divided = divide(text.removeprefix("\ufeff"))
    batch = batch_of(
        divided.prompt,
        divided.negative_prompt or "",
        divided.pairs,
        divided.unparsed,
        no_negative=divided.negative_prompt == "",
        max_size=max_size,
        max_steps=max_steps,
    )
    return batch._replace(warnings=batch.warnings + divided.warnings)


def batch_of(
    prompt: str,
    negative_prompt: str,
    pairs: Sequence[Pair],
    unparsed: Sequence[str] = (),
    *,
    no_negative: bool = False,
    max_size: int = UNLIMITED,
    max_steps: int = UNLIMITED,
) -> PromptBatch:
    """Return what the prompts and *pairs* ask for; *unparsed* is named with the pairs that are not used.

    *no_negative* says that ``Negative prompt:`` stands there without a text. For the limits and what is raised see
    `parse_batch`.
    """
    shown = RANGES | {
        "steps": RANGES["steps"].up_to(max_steps),
        "batch_size": BATCH_SIZES.up_to(max_size),
    }
    values, unused = read_values(pairs, shown)
    size = values.pop("batch_size", 1)
    # The infotext of one picture of a batch has that picture's own seed.
    if values.pop("batch_position", None) is not None:
        size = 1
    parameters = PromptParameters(
        prompt=prompt, negative_prompt=negative_prompt, no_negative_prompt=no_negative, **values
    )
    check(parameters, shown)
    unused += unparsed
    warnings = [f"Not used of the parameters: {', '.join(unused)}."] if unused else []
    return PromptBatch(parameters, size, warnings)


def format_infotext(parameters: GenerationParameters, model: str = "") -> str:
    """Format *parameters* as infotext, with *model*, unless it is empty, as ``Model``.

    `parse_infotext` reads the same values back, within the limits of the format: white space around
    a line is lost, a prompt is split at a line that begins with ``Negative prompt:``, and one of its lines that
    looks like parameters is taken as such.
    """
    pairs: list[tuple[str, object]] = [
        ("Steps", parameters.steps),
        ("Sampler", parameters.sampler),
        ("CFG scale", format_number(parameters.guidance_scale)),
        ("Seed", parameters.seed),
        ("Size", f"{parameters.width}x{parameters.height}"),
        ("Model", model or None),
    ]
    return Description(
        parameters.prompt,
        parameters.negative_prompt,
        [(key, str(value)) for key, value in pairs if value is not None],
    ).infotext()
