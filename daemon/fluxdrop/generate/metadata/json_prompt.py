"""JSON that describes pictures: one object, several, or a list of them."""

from __future__ import annotations

import json
import re
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import Description
from fluxdrop.generate.metadata.comfyui import is_graph, is_workflow, read_graph
from fluxdrop.generate.metadata.fields import read_fields
from fluxdrop.generate.metadata.weight_syntax import from_comfyui

# What begins so is meant as JSON; "{red|blue} circle" and "[a|b]" are prompts.
_BEGINNING = re.compile(
    r"""\s* (?: \[ \s* )? \{ \s* (?: (?: "[^"]*" | '[^']*' | (?:negative_)?prompt ) \s* : | \} \s* $ )""",
    re.VERBOSE,
)
_LIST_OF_TEXTS = re.compile(r'\s*\[\s*"')
_FENCE = "```"


def json_descriptions(text: str) -> list[Description] | None:
    """Return what the JSON *text* describes; None if it is not meant as JSON.

    Several objects, one after another or in a list, are several prompts.

    Raises:
        FluxdropError: Kind ``prompt``, when it is not valid JSON or describes no picture.
    """
    text = text.removeprefix("\ufeff")
    stripped = text.strip()
    if stripped.startswith(_FENCE) and stripped.endswith(_FENCE):
        # As language models write it: a line "```json" before it, and "```" behind.
        text = stripped.removesuffix(_FENCE).partition("\n")[2]
    if _BEGINNING.match(text) is None:
        return _several_texts(text)
    return [
        describe(value)
        for decoded in _values(text)
        for value in (decoded if isinstance(decoded, list) else [decoded])
    ]


def _several_texts(text: str) -> list[Description] | None:
    """Return the prompts that *text* is a list of; None if it is none, as ``["a", b]`` may be a prompt."""
    if _LIST_OF_TEXTS.match(text) is None:
        return None
    try:
        texts = load_json(text)
    except ValueError:
        return None
    # '["a"]' may be a prompt with a weight.
    if len(texts) < 2 or not all(isinstance(one, str) for one in texts):
        return None
    return [Description(_sound(one), "", []) for one in texts]


def describe(value: Any) -> Description:
    """Return what a decoded JSON *value* describes: parameters, or a graph of ComfyUI.

    Raises:
        FluxdropError: Kind ``prompt``, when it describes no picture, or a value in it is of the wrong type.
    """
    found = _describe(value)
    return found._replace(
        prompt=_sound(found.prompt),
        negative_prompt=_sound(found.negative_prompt),
        pairs=[(_sound(key), _sound(text)) for key, text in found.pairs],
    )


def _sound(text: str) -> str:
    """Return *text* with U+FFFD for halves of surrogate pairs, which JSON may have and no file can."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _describe(value: Any) -> Description:
    if not isinstance(value, dict):
        raise FluxdropError("A prompt in JSON has to be an object.", kind="prompt")
    if is_workflow(value):
        raise FluxdropError(
            "This is a workflow of ComfyUI, which does not say what its nodes compute.",
            hint="Export it from ComfyUI's menu with 'Export (API)'.",
            kind="prompt",
        )
    if is_graph(value):
        return read_graph(value)
    if is_graph(value.get("prompt")):
        # What ComfyUI's /prompt takes.
        return read_graph(value["prompt"])
    if isinstance(inner := value.get("sui_image_params"), dict):
        # SwarmUI's other keys are about how long it took and the like.
        found = read_fields({k: v for k, v in inner.items() if k not in _SWARM_FACTS})
        return found._replace(
            prompt=from_comfyui(found.prompt), negative_prompt=from_comfyui(found.negative_prompt)
        )
    if isinstance(inner := value.get("parameters"), dict):
        # What the hub's inference API takes: inputs and parameters.
        return read_fields({k: v for k, v in value.items() if k != "parameters"} | inner)
    return read_fields(value)


_SWARM_FACTS = ("swarm_version", "aspectratio", "images")


def load_json(text: str) -> Any:
    """Decode JSON, also with the NaN that ComfyUI writes.

    Raises:
        ValueError: It is not valid, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _with_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of *pairs*; of a key's several values the last counts, and another is kept as unknown."""
    value = dict(pairs)
    if len(value) < len(pairs):
        value |= {f"other {key}": other for key, other in pairs if other != value[key]}
    return value


def _values(text: str) -> list[Any]:
    """Return the JSON values in *text*, one after another."""
    decoder = json.JSONDecoder(object_pairs_hook=_with_repeated)
    values, start = [], 0
    try:
        while start < len(text):
            if text[start].isspace() or text[start] == ",":
                start += 1
                continue
            value, start = decoder.raw_decode(text, start)
            values.append(value)
    except (ValueError, RecursionError) as error:
        reason = (
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else "a number is too long, or it is nested too deeply"
        )
        raise FluxdropError(
            f"It begins like JSON, but is not valid: {reason}.",
            hint="Correct the JSON, or write the prompt as plain text.",
            kind="prompt",
        ) from error
    return values
