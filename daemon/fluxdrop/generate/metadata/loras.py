"""The LoRAs that other programs' metadata names, as the tags of a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LORA_KEYS = re.compile(r"loras|loraweights|loracombined\d+")
"""The keys, without case and "_", that `lora_tags` reads."""

_COMBINED = re.compile(r"lora_combined_\d+")


def lora_tags(data: Mapping[str, Any]) -> list[str]:
    """Return a tag ``<lora:NAME:WEIGHT>`` for each LoRA in *data*; what has another form is left out.

    InvokeAI writes ``loras`` as objects with a model and a weight, Fooocus as lists ``[name, weight, hash]`` or as
    ``lora_combined_1: "name : weight"``, and SwarmUI as names, with ``loraweights`` beside them.
    """
    loras = data.get("loras")
    if isinstance(loras, str):
        loras = [name.strip() for name in loras.split(",") if name.strip()]
    if not isinstance(loras, list) or not loras:
        combined = [value for key, value in data.items() if _COMBINED.fullmatch(key)]
        loras = [text.split(" : ")[-2:] for text in combined if isinstance(text, str)]
    weights = data.get("loraweights", [])
    if isinstance(weights, str):
        weights = weights.split(",")
    tags = []
    for number, lora in enumerate(loras):
        weight: Any = weights[number] if isinstance(weights, list) and number < len(weights) else 1
        name: Any = lora
        if isinstance(lora, dict):
            model = lora.get("model") or lora.get("lora") or {}
            names = [lora, *([model] if isinstance(model, dict) else [])]
            name, weight = _first(names, ("name", "model_name")), lora.get("weight", 1)
        elif isinstance(lora, list) and len(lora) > 1:
            name, weight = lora[0], lora[1]
        if (tag := lora_tag(name, weight)) is not None:
            tags.append(tag)
    return tags


def lora_tag(name: Any, weight: Any) -> str | None:
    """Return the tag for a LoRA's file *name* and its *weight*; None if they are not such."""
    try:
        stem, factor = file_stem(name), float(weight)
    except (TypeError, ValueError, AttributeError):
        return None
    if not stem or re.search(r"[:<>]", stem) or name == "None":
        return None
    return f"<lora:{stem}:{factor:g}>"


def file_stem(name: str) -> str:
    """Return a model's or LoRA's *name* without folders, of any system, and without a suffix of weights."""
    last = re.split(r"[/\\]", name.strip())[-1]
    return re.sub(r"\.(safetensors|ckpt|pt|gguf|bin)$", "", last, flags=re.IGNORECASE)


def _first(objects: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> Any:
    return next((one[key] for one in objects for key in keys if key in one), None)
