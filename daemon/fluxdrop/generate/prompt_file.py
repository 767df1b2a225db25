"""Prompt files: one infotext or several, separated by lines of dashes, each for one or more pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_regular
from fluxdrop.generate.infotext import PromptBatch, parse_batch
from fluxdrop.generate.parameters import RANGES, UNLIMITED, PromptParameters, random_seed

MAX_PICTURES = 1000
"""The largest number of pictures that a file may ask for, whatever the settings allow."""

_SEPARATOR = re.compile(r"^[ \t]*---[ \t]*\r?$", re.MULTILINE)
_WEIGHT = re.compile(r"\([^()]*:\s*\d+(?:\.\d+)?\s*\)")


class PromptPicture(NamedTuple):
    """One picture that a file asks for, with its warnings."""

    parameters: PromptParameters
    warnings: list[str]


def is_divided(text: str) -> bool:
    """Return whether *text* has a line of three dashes, which separates prompts."""
    return _SEPARATOR.search(text) is not None


def read_prompts(
    text: str, limit: int = MAX_PICTURES, max_steps: int = UNLIMITED
) -> list[PromptPicture]:
    """Return the pictures that a prompt file asks for, in the file's order.

    Prompts are separated by lines of three dashes; blank ones are ignored. The seeds of a batch are
    consecutive, as in stable-diffusion-webui.

    Args:
        text: The contents of the file.
        limit: The largest number of pictures.
        max_steps: The limit of the steps in the settings, for errors to name; it is not checked here.

    Raises:
        FluxdropError: Kind ``prompt``, when any of the prompts is invalid or there are too many
            pictures.
    """
    texts = [part for part in _SEPARATOR.split(text) if part.strip("\ufeff \t\r\n")] or [""]
    wanted: list[PromptPicture] = []
    for number, part in enumerate(texts, 1):
        try:
            wanted += _pictures(parse_batch(part, limit, max_steps))
        except FluxdropError as error:
            if len(texts) == 1:
                raise
            raise FluxdropError(
                f"Prompt {number} of {len(texts)}: {error.message}",
                hint=error.hint,
                kind=error.kind,
            ) from error
        if len(wanted) > limit:
            raise FluxdropError(
                f"The file asks for {len(wanted):,} pictures or more; at most {limit:,} here.",
                hint="Divide it into several files, or have max_pictures_per_prompt in"
                " fluxdrop.toml raised, which can be 1,000.",
                kind="prompt",
            )
    return wanted


def _pictures(batch: PromptBatch) -> list[PromptPicture]:
    """Return the pictures of a batch, each with its seed."""
    parameters, size, warnings = batch
    if _WEIGHT.search(parameters.prompt) or _WEIGHT.search(parameters.negative_prompt):
        warnings = [*warnings, "Weights such as (word:1.2) are read as plain words."]
    if size == 1:
        return [PromptPicture(parameters, warnings)]
    first = random_seed() if parameters.seed is None else parameters.seed
    seeds = [(first + number) % (int(RANGES["seed"].high) + 1) for number in range(size)]
    return [
        PromptPicture(msgspec.structs.replace(parameters, seed=seed), warnings) for seed in seeds
    ]


def read_prompt(path: Path, max_bytes: int, name: str = "") -> str:
    """Read a prompt file.

    Args:
        path: The file.
        max_bytes: The largest file that is read.
        name: What errors call the file; the last part of *path* if empty.

    Raises:
        FluxdropError: Kind ``prompt``, when it cannot be read, is too large or is not UTF-8.
    """
    with open_regular(path, "prompt", name) as file:
        data = file.read(max_bytes + 1)
    name = name or path.name
    if len(data) > max_bytes:
        raise FluxdropError(
            f"{name} has more than {max_bytes:,} bytes, the limit for a prompt",
            hint="Shorten it, or raise max_prompt_bytes in fluxdrop.toml.",
            kind="prompt",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        looks = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise FluxdropError(
            f"{name} is not UTF-8 text{looks}: byte {error.start + 1} is 0x{data[error.start]:02X}",
            hint="Save it as UTF-8 and drop it once more.",
            kind="prompt",
        ) from error
