"""LoRA files, which a prompt asks for by ``<lora:NAME:WEIGHT>`` as in stable-diffusion-webui."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.resources import expanded

_TAG = re.compile(r"<lora:(?P<name>[^:<>]+)(?::(?P<weight>[^<>]*))?>")
_MOST = 10.0


class Lora(NamedTuple):
    """A file of low-rank weights, and how much of it is added."""

    file: Path
    weight: float


def split_tags(prompt: str, folder: str) -> tuple[str, list[Lora], list[str]]:
    """*prompt* without its tags, the LoRAs that they mean in *folder*, and warnings.

    A NAME is a file's without its suffix, in *folder* or below. Raises FluxdropError of kind
    ``prompt`` for a weight that cannot be, and ``pipeline`` for one that is there as pickle only.
    """
    tags = list(_TAG.finditer(prompt))
    if not tags:
        return prompt, [], []
    files = _files(folder)
    loras: dict[Path, float] = {}
    warnings = []
    for tag in tags:
        name, weight = tag["name"].strip(), _weight(tag)
        file = files.get(f"{name}.safetensors")
        if file is not None:
            loras[file] = weight
        elif pickled := [f for f in (f"{name}.pt", f"{name}.ckpt", f"{name}.bin") if f in files]:
            raise FluxdropError(
                f"The LoRA {name} is there as pickle only ({pickled[0]}), which fluxdrop never loads",
                hint="Get it as safetensors.",
                kind="pipeline",
            )
        else:
            warnings.append(f"LoRA {name} is not on this station; the picture is made without it.")
    text = re.sub(r"[ \t]{2,}", " ", _TAG.sub("", prompt)).strip()
    return text, [Lora(file, weight) for file, weight in loras.items()], warnings


def _files(folder: str) -> dict[str, Path]:
    if not folder:
        return {}
    return {path.name: path for path in sorted(expanded(folder).rglob("*"), reverse=True)}


def _weight(tag: re.Match[str]) -> float:
    try:
        weight = float(tag["weight"] or 1)
    except ValueError:
        weight = _MOST + 1
    if not -_MOST <= weight <= _MOST:
        raise FluxdropError(
            f"The weight in {tag[0]} is no number from {-_MOST:g} to {_MOST:g}", kind="prompt"
        )
    return weight
