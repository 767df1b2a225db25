"""Infotext: the text that AUTOMATIC1111's stable-diffusion-webui writes into a picture's metadata.

It has the prompt's lines, then ``Negative prompt: ...``, then one line ``Steps: 20, Sampler: Euler a,
CFG scale: 7, Seed: 42, Size: 512x512``. The format has no specification. It is defined by what
stable-diffusion-webui's ``modules/infotext_utils.py`` reads (``parse_generation_parameters``,
``quote``) and what its ``modules/processing.py`` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.parameters import (
    BATCH_SIZES,
    RANGES,
    UNLIMITED,
    GenerationParameters,
    PromptParameters,
    Range,
    check,
)

# Takes a value and the ranges that errors name; returns the fields of the request that the value stands for.
_Reader = Callable[[str, Mapping[str, Range]], dict[str, Any]]

_NEGATIVE = "Negative prompt:"
_MIN_PARAMETER_PAIRS = 3
# Schedule types that mean the sampler's default schedule.
_DEFAULT_SCHEDULES = ("", "automatic", "uniform", "default")

# A key has to follow the beginning of the line or a comma. So the weights in a prompt such as
# "(red hair:1.2), (smile:0.8)" do not match, and a long line takes linear time.
_PAIR = re.compile(
    r"""(?: ^ | (?<=,) ) \s* (?P<key> \w[\w /-]+ ) :
        \s* (?P<value> "(?: [^"\\] | \\. )+" | [^,]* ) (?: , | $ )""",
    re.VERBOSE,
)
_SIZE = re.compile(r"(\d{1,9})\s*[xX]\s*(\d{1,9})", re.ASCII)


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
    """Parse an infotext; the warnings name every key that is not used.

    The last line holds the parameters when it has at least three ``key: value`` pairs, as in
    stable-diffusion-webui, or begins with ``Steps:``. Otherwise, and when it begins with ``Negative
    prompt:``, it belongs to the prompts. White space around each line is removed.

    Args:
        text: The infotext.
        max_size: The limit of the batch size in the settings. Only errors use it, to name the range that applies.
        max_steps: The limit of the steps in the settings, for errors, too.

    Raises:
        FluxdropError: Kind ``prompt``, when the prompt is empty or a value is invalid.
    """
    *lines, last = [line.strip() for line in text.removeprefix("\ufeff").strip().split("\n")]
    pairs = list(_PAIR.finditer(last))
    few = len(pairs) < _MIN_PARAMETER_PAIRS and not last.startswith("Steps:")
    if few or last.startswith(_NEGATIVE):
        lines.append(last)
        last, pairs = "", []
    prompt, negative = _split_prompts(lines)
    shown = RANGES | {
        "steps": RANGES["steps"].up_to(max_steps),
        "batch_size": BATCH_SIZES.up_to(max_size),
    }
    values, unused = _read_values(pairs, shown)
    size = values.pop("batch_size", 1)
    # The infotext of one picture of a batch has that picture's own seed.
    if values.pop("batch_position", None) is not None:
        size = 1
    parameters = PromptParameters(prompt=prompt, negative_prompt=negative, **values)
    check(parameters, shown)
    unused += _unparsed(last, pairs)
    warnings = [f"Not used of the parameters: {', '.join(unused)}."] if unused else []
    return PromptBatch(parameters, size, warnings)


def format_infotext(parameters: GenerationParameters, model: str = "") -> str:
    """Format *parameters* as infotext, with *model*, unless it is empty, as ``Model``.

    `parse_infotext` reads the same values back, within two limits of the format: white space around
    a line is lost, and a prompt is split at a line that begins with ``Negative prompt:``.
    """
    pairs: list[tuple[str, object]] = [
        ("Steps", parameters.steps),
        ("Sampler", parameters.sampler),
        ("CFG scale", _format_number(parameters.guidance_scale)),
        ("Seed", parameters.seed),
        ("Size", f"{parameters.width}x{parameters.height}"),
        ("Model", model or None),
    ]
    lines = [parameters.prompt]
    if parameters.negative_prompt:
        lines.append(f"{_NEGATIVE} {parameters.negative_prompt}")
    lines.append(", ".join(f"{key}: {quote(str(v))}" for key, v in pairs if v is not None))
    return "\n".join(lines)


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    """Return the prompt and the negative prompt."""
    prompts: tuple[list[str], list[str]] = [], []
    current = prompts[0]
    for line in lines:
        if line.startswith(_NEGATIVE):
            current = prompts[1]
            line = line.removeprefix(_NEGATIVE).strip()
        current.append(line)
    return "\n".join(prompts[0]).strip(), "\n".join(prompts[1]).strip()


def _read_values(
    pairs: list[re.Match[str]], shown: Mapping[str, Range]
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of PromptParameters, and the unused pairs as text; errors name the ranges *shown*."""
    values: dict[str, Any] = {}
    unused = []
    schedule = ""
    distilled: float | None = None
    for pair in pairs:
        key, value = pair["key"].strip(), _unquote(pair["value"].strip())
        folded = key.casefold()
        if folded == "schedule type":
            schedule = value
        elif folded == "distilled cfg scale":
            distilled = _guidance_scale(value, shown)["guidance_scale"]
        elif reader := _READERS.get(folded):
            values |= reader(value, shown)
        else:
            unused.append(f"{key}: {value}")
    # Forge writes this for FLUX, which has only distilled guidance; the CFG scale is 1 then.
    if distilled is not None:
        scale = values.get("guidance_scale", 1)
        unused += [f"CFG scale: {_format_number(scale)}"] if scale != 1 else []
        values["guidance_scale"] = distilled
    # Since stable-diffusion-webui 1.9 "DPM++ 2M Karras" is split into a sampler and a schedule type.
    if schedule.casefold() not in _DEFAULT_SCHEDULES:
        if values.get("sampler"):
            values["sampler"] += f" {schedule}"
        else:
            unused.append(f"Schedule type: {schedule}")
    return values, unused


def _unparsed(line: str, pairs: list[re.Match[str]]) -> list[str]:
    """Return the parts of *line* that belong to none of its *pairs*."""
    ends = [0, *(pair.end() for pair in pairs)]
    starts = [*(pair.start() for pair in pairs), len(line)]
    gaps = (line[end:start].strip(" ,") for end, start in zip(ends, starts, strict=True))
    return [gap for gap in gaps if gap]


def _integer_reader(field: str) -> _Reader:
    """Return a reader of a whole number for the *field* of PromptParameters."""

    def read(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
        try:
            return {field: int(value)}
        except ValueError:
            raise _invalid_value(shown[field], value, "a whole number") from None

    return read


def _seed(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    return {"seed": None} if value == "-1" else _integer_reader("seed")(value, shown)


def _guidance_scale(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    try:
        return {"guidance_scale": float(value)}
    except ValueError:
        raise _invalid_value(shown["guidance_scale"], value, "a number") from None


def _size(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise FluxdropError(
            f"Size is {value!r}, not WIDTHxHEIGHT with both {shown['width']}.", kind="prompt"
        )
    return {"width": int(match[1]), "height": int(match[2])}


def _batch_size(value: str, shown: Mapping[str, Range]) -> dict[str, Any]:
    size = int(value) if value.isdecimal() else 0
    if not BATCH_SIZES.low <= size <= BATCH_SIZES.high:
        allowed = shown["batch_size"]
        raise FluxdropError(f"{allowed.key} is {value}; must be {allowed}.", kind="prompt")
    return {"batch_size": size}


def _sampler(value: str, _shown: Mapping[str, Range]) -> dict[str, Any]:
    # SD.Next calls the pipeline's own sampler Default.
    return {"sampler": None if value.casefold() in ("", "default") else value}


def _name_reader(field: str) -> _Reader:
    """Return a reader of a name for the *field* of PromptParameters."""
    return lambda value, _shown: {field: value or None}


_READERS: dict[str, _Reader] = {
    "steps": _integer_reader("steps"),
    "sampler": _sampler,
    "cfg scale": _guidance_scale,
    "seed": _seed,
    "size": _size,
    "batch size": _batch_size,
    "batch pos": lambda value, _shown: {"batch_position": value},
    "model": _name_reader("pipeline"),
}


def _invalid_value(allowed: Range, value: str, what: str) -> FluxdropError:
    """Return the error for a *value* that is not *what*."""
    return FluxdropError(f"{allowed.key} is {value!r}, not {what}: {allowed}.", kind="prompt")


def _format_number(value: float | None) -> str | None:
    return None if value is None else repr(float(value)).removesuffix(".0")


def quote(text: str) -> str:
    """Return *text* as an infotext value, in quotes if it could be read as several values."""
    plain = not re.search(r"[,:\n]", text) and not text.startswith('"') and text == text.strip()
    return text if plain else json.dumps(text, ensure_ascii=False)


def _unquote(text: str) -> str:
    """Undo `quote`."""
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text
