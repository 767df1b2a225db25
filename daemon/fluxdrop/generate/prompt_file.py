"""Prompt files: one prompt or several, separated by lines of dashes, each for one or more pictures.

A prompt is infotext or a JSON object.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_regular
from fluxdrop.generate.infotext import PromptBatch, batch_of, parse_batch
from fluxdrop.generate.metadata.json_prompt import json_descriptions
from fluxdrop.generate.parameter_lines import doubts
from fluxdrop.generate.parameters import RANGES, UNLIMITED, PromptParameters, random_seed
from fluxdrop.generate.prompt_syntax import syntax_warnings

MAX_PICTURES = 1000
"""The largest number of pictures that a file may ask for, whatever the settings allow."""

# By byte order mark; that of UTF-32 begins with one of UTF-16. Notepad and PowerShell write UTF-16.
_ENCODINGS = {
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF32_LE: "UTF-32-LE",
    codecs.BOM_UTF32_BE: "UTF-32-BE",
    codecs.BOM_UTF16_LE: "UTF-16-LE",
    codecs.BOM_UTF16_BE: "UTF-16-BE",
}
_SEPARATOR = re.compile(r"^[ \t]*---[ \t]*\r?$", re.MULTILINE)


class PromptPicture(NamedTuple):
    """One picture that a file asks for, with its warnings."""

    parameters: PromptParameters
    warnings: list[str]


def is_divided(text: str) -> bool:
    """Return whether *text* has a line of three dashes, which separates prompts."""
    return _SEPARATOR.search(text) is not None


def read_prompts(
    text: str,
    limit: int = MAX_PICTURES,
    max_steps: int = UNLIMITED,
    seed: int | None = None,
) -> list[PromptPicture]:
    """Return the pictures that a prompt file asks for, in the file's order.

    Prompts are separated by lines of three dashes; blank ones are ignored. The seeds of a batch are
    consecutive, as in stable-diffusion-webui.

    Args:
        text: The contents of the file.
        limit: The largest number of pictures.
        max_steps: The limit of the steps in the settings, for errors to name; it is not checked here.
        seed: The seed of a prompt that has none; None for a random one.

    Raises:
        FluxdropError: Kind ``prompt``, when any of the prompts is invalid or there are too many
            pictures.
    """
    texts = [part for part in _SEPARATOR.split(text) if part.strip("\ufeff \t\r\n")] or [""]
    wanted: list[PromptPicture] = []
    for number, part in enumerate(texts, 1):
        try:
            for batch in _batches(part, limit, max_steps):
                wanted += _pictures(batch, seed)
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


def _batches(text: str, limit: int, max_steps: int) -> list[PromptBatch]:
    """Return what one of a file's prompts asks for, which is several batches only in JSON."""
    described = json_descriptions(text)
    if described is None:
        return [parse_batch(text, limit, max_steps)]
    batches = [
        batch_of(
            one.prompt,
            one.negative_prompt,
            one.pairs,
            no_negative=one.no_negative_prompt,
            max_size=limit,
            max_steps=max_steps,
        )
        for one in described
    ]
    return [
        batch._replace(warnings=[*batch.warnings, *doubts(batch.parameters.prompt)])
        for batch in batches
    ]


def _pictures(batch: PromptBatch, seed: int | None) -> list[PromptPicture]:
    """Return the pictures of a batch, each with its seed, which *seed* is if the batch has none."""
    parameters, size, warnings = batch
    if seed is not None and not parameters.random_seed:
        parameters = parameters.with_seed(seed)
    for text in (parameters.prompt, parameters.negative_prompt):
        warnings = [*warnings, *syntax_warnings(text)]
    if size == 1:
        return [PromptPicture(parameters, warnings)]
    parameters = parameters.with_seed(random_seed())
    assert parameters.seed is not None
    first, seeds = parameters.seed, int(RANGES["seed"].high) + 1
    return [
        PromptPicture(msgspec.structs.replace(parameters, seed=(first + number) % seeds), warnings)
        for number in range(size)
    ]


def read_prompt(path: Path, max_bytes: int, name: str = "") -> str:
    """Read a prompt file: UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Args:
        path: The file.
        max_bytes: The largest file that is read.
        name: What errors call the file; the last part of *path* if empty.

    Raises:
        FluxdropError: Kind ``prompt``, when it cannot be read, is too large or is no text.
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
    return _decoded(data, name)


def _decoded(data: bytes, name: str) -> str:
    """Decode *data*, of the file *name*: UTF-8, or what its byte order mark says; raise if it is neither."""
    mark = next((mark for mark in _ENCODINGS if data.startswith(mark)), b"")
    encoding = _ENCODINGS.get(mark, "UTF-8")
    if not mark and b"\0" in data:
        # In UTF-16 every second byte of English is zero.
        raise FluxdropError(
            f"{name} looks like UTF-16 without a byte order mark, or is not text: it has zero bytes",
            hint="Save it as UTF-8, or with a byte order mark, and drop it once more.",
            kind="prompt",
        )
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        byte = len(mark) + error.start
        raise FluxdropError(
            f"{name} is not {encoding} text: byte {byte + 1} is 0x{data[byte]:02X}",
            hint="Save it as UTF-8 and drop it once more.",
            kind="prompt",
        ) from error
