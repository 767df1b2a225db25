"""A prompt file: one infotext, or several between lines of dashes, each for one picture or more."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import Batch, parse_batch
from fluxdrop.generate.request import RANGES, GenerationRequest

MOST_PICTURES = 1000
"""What one file may ask for, whatever a station allows."""

_DIVIDER = re.compile(r"^[ \t]*---[ \t]*\r?$", re.MULTILINE)
_WEIGHT = re.compile(r"\([^()]*:\s*\d+(?:\.\d+)?\s*\)")
_DRAWN_BITS = 32


class Wanted(NamedTuple):
    """One picture that a file asks for, and what is to be said of it."""

    request: GenerationRequest
    warnings: list[str]


def is_divided(text: str) -> bool:
    """Whether *text* has a line of three dashes, which divides prompts."""
    return _DIVIDER.search(text) is not None


def read_prompts(text: str, most: int = MOST_PICTURES) -> list[Wanted]:
    """The pictures that a prompt file with *text* asks for, in its order; *most* are possible.

    Prompts are divided by lines of three dashes; what is blank between them counts for nothing. The
    pictures of a batch have seeds that count on from the first, as in stable-diffusion-webui. Raises
    FluxdropError of kind ``prompt``, for the whole file, when one of the prompts cannot be.
    """
    texts = [part for part in _DIVIDER.split(text) if part.strip("\ufeff \t\r\n")] or [""]
    wanted: list[Wanted] = []
    for number, part in enumerate(texts, 1):
        try:
            wanted += _pictures(parse_batch(part))
        except FluxdropError as error:
            if len(texts) == 1:
                raise
            raise FluxdropError(
                f"Prompt {number} of {len(texts)}: {error.message}",
                hint=error.hint,
                kind=error.kind,
            ) from error
        if len(wanted) > most:
            raise FluxdropError(
                f"The file asks for {len(wanted):,} pictures or more; possible here are {most:,}.",
                hint="Divide it into several files, or have max_pictures_per_prompt in"
                " fluxdrop.toml raised, which can be 1,000.",
                kind="prompt",
            )
    return wanted


def _pictures(batch: Batch) -> list[Wanted]:
    request, size, warnings = batch
    if _WEIGHT.search(request.prompt) or _WEIGHT.search(request.negative_prompt):
        warnings = [*warnings, "Weights such as (word:1.2) are read as plain words."]
    if size == 1:
        return [Wanted(request, warnings)]
    first = secrets.randbits(_DRAWN_BITS) if request.seed is None else request.seed
    seeds = [(first + number) % (int(RANGES["seed"].high) + 1) for number in range(size)]
    return [Wanted(msgspec.structs.replace(request, seed=seed), warnings) for seed in seeds]
