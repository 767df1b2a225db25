"""Read a flat JSON object of parameters, as programs write it into pictures and people into prompt files.

The keys are those of infotext, of the arguments of diffusers' pipelines and of stable-diffusion-webui's API, and those
that InvokeAI, SwarmUI, Fooocus, NovelAI, Draw Things and Easy Diffusion write into pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import Description
from fluxdrop.generate.metadata.loras import LORA_KEYS, file_stem, lora_tags

# By infotext's key, the others' without case, spaces, "_" and "-". Of several in one object the first here counts.
_TEXTS = {
    "prompt": "prompt positiveprompt positive inputs c",
    "negative prompt": "negativeprompt negative uc",
}
_NUMBERS = {
    "Steps": "steps numinferencesteps samplingsteps",
    "CFG scale": "guidancescale cfgscale cfg scale",
    "Distilled CFG Scale": "guidance distilledcfgscale fluxguidancescale",
    "Seed": "seed noiseseed",
    "Width": "width",
    "Height": "height",
    "Batch size": "batchsize numimagesperprompt numimages",
}
_NAMES = {
    "Sampler": "sampler samplername comfyuisampler autowebuisampler",
    "Schedule type": "scheduletype scheduler schedule noiseschedule comfyuischeduler",
    "Model": "model modelname basemodel checkpoint ckptname sdmodelcheckpoint usestablediffusionmodel"
    " stablediffusionmodel",
}
_SIZES = "size resolution"
_SIZE = re.compile(r"\D*(\d{1,9})\D+(\d{1,9})\D*", re.ASCII)
_MAX_SHOWN = 100


def read_fields(data: Mapping[str, Any]) -> Description:
    """Read an object of parameters; its unknown keys become pairs, which are then named in a warning.

    So do the values that differ of several keys with one meaning, of which the first counts.

    Raises:
        FluxdropError: Kind ``prompt``, when there is no prompt or a value is of the wrong type; it names the key.
    """
    others: list[tuple[str, str]] = []
    left = {_folded(key): key for key in data if data[key] is not None and data[key] != ""}

    def take(names: str) -> tuple[str, Any] | None:
        found = [left.pop(name) for name in names.split() if name in left]
        others.extend(
            (f"other {k}", _shown(data[k])) for k in found[1:] if data[k] != data[found[0]]
        )
        return (found[0], data[found[0]]) if found else None

    texts = {ours: _text(take(names)) for ours, names in _TEXTS.items()}
    prompt = texts["prompt"]
    if prompt is None:
        raise FluxdropError('The JSON object has no "prompt".', kind="prompt")
    pairs = []
    for ours, names in _NUMBERS.items():
        if (found := take(names)) is not None:
            pairs.append((ours, _number(*found)))
    has_sampler = any(name in left for name in _NAMES["Sampler"].split())
    for ours, names in _NAMES.items():
        if (found := take(names)) is not None:
            key, value = found
            # diffusers and InvokeAI call the sampler scheduler.
            is_sampler = _folded(key) == "scheduler" and not has_sampler
            pairs.append(("Sampler" if is_sampler else ours, _name(key, value)))
    if (found := take(_SIZES)) is not None:
        pairs.append(("Size", _size(*found)))
    tags = [] if "<lora:" in prompt else lora_tags(data)
    for folded, key in left.items():
        if not LORA_KEYS.fullmatch(folded):
            pairs.append((key.strip() or "?", _shown(data[key])))
    negative = texts["negative prompt"] or ""
    keys = [_folded(key) for key in data if data[key] == ""]
    none = not negative and any(key in _TEXTS["negative prompt"].split() for key in keys)
    return Description(" ".join([prompt, *tags]), negative, pairs + others, none)


def wrong_type(key: str, value: Any, what: str) -> FluxdropError:
    """Return the error for a *value* that is not *what*."""
    return FluxdropError(f'"{key}" is {_shown(value)}, not {what}.', kind="prompt")


def _folded(key: str) -> str:
    return re.sub(r"[\s_-]", "", key).casefold()


def _text(found: tuple[str, Any] | None) -> str | None:
    if found is None:
        return None
    if not isinstance(found[1], str):
        raise wrong_type(*found, "a text")
    return found[1]


def _number(key: str, value: Any) -> str:
    """Return a number as infotext writes it. SwarmUI and Fooocus write numbers as texts, too."""
    if isinstance(value, str) and re.match(r"\s*[+-]?\.?\d", value):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(key, value, "a number")
    return repr(value)


def _name(key: str, value: Any) -> str:
    """Return a name; of a model its file's without folders and suffix. InvokeAI names a model in an object."""
    if isinstance(value, dict):
        value = value.get("name", value.get("model_name"))
    if not isinstance(value, str):
        raise wrong_type(key, value, "a name")
    return file_stem(value)


def _size(key: str, value: Any) -> str:
    """Return a size as infotext writes it, from ``64x64``, ``(64, 64)`` or ``[64, 64]``."""
    match = _SIZE.fullmatch(str(value)[:_MAX_SHOWN]) if isinstance(value, str | list) else None
    if match is None:
        raise wrong_type(key, value, "a width and a height")
    return f"{match[1]}x{match[2]}"


def _shown(value: Any) -> str:
    """Return *value* as JSON, cut off where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
