"""LoRA files, which a prompt selects with ``<lora:NAME:WEIGHT>``, as in stable-diffusion-webui."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from fluxdrop.errors import FluxdropError
from fluxdrop.resources import expanded

# "lyco" is what an extension of stable-diffusion-webui used for LyCORIS files.
_TAG = re.compile(r"<(?:lora|lyco):(?P<name>[^:<>]+)(?::(?P<weights>[^<>]*))?>")
_HYPERNETWORK = re.compile(r"<hypernet:[^<>]*>")
_MAX_WEIGHT = 10.0


class Lora(NamedTuple):
    """A file of low-rank weights, and the factor with which it is applied."""

    file: Path
    weight: float


def split_tags(prompt: str, folder: str) -> tuple[str, list[Lora], list[str]]:
    """Split the LoRA tags off a prompt.

    A NAME is that of a .safetensors file in *folder* or below, without its suffix.

    Args:
        prompt: The prompt with its tags.
        folder: The folder of LoRAs; an empty string if there is none.

    Returns:
        The prompt without its tags, the LoRAs, and a warning for each that is not in *folder*, and for what of a tag
        is not used: of several weights only the first is, for the text encoder, too.

    Raises:
        FluxdropError: Kind ``prompt`` for an invalid weight, and kind ``pipeline`` for a LoRA that
            exists as pickle only.
    """
    tags = list(_TAG.finditer(prompt))
    hypernetworks = _HYPERNETWORK.findall(prompt)
    if not tags and not hypernetworks:
        return prompt, [], []
    files = _files(folder)
    loras: dict[Path, float] = {}
    warnings = [f"Hypernetworks are not supported: {tag} is not used." for tag in hypernetworks]
    for tag in tags:
        name, (weight, rest) = tag["name"].strip(), _weight(tag)
        if rest:
            warnings.append(
                f"Of {tag[0]} only the weight {weight:g} is used, not {':'.join(rest)}."
            )
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
            warnings.append(f"LoRA {name} is not on this machine; the picture is made without it.")
    text = re.sub(r"[ \t]{2,}", " ", _HYPERNETWORK.sub("", _TAG.sub("", prompt))).strip()
    return text, [Lora(file, weight) for file, weight in loras.items()], warnings


def _files(folder: str) -> dict[str, Path]:
    """Return the files in *folder* and below by name; of equal names the first in sorted order."""
    if not folder:
        return {}
    return {path.name: path for path in sorted(expanded(folder).rglob("*"), reverse=True)}


def _weight(tag: re.Match[str]) -> tuple[float, list[str]]:
    """Return the weight in *tag*, 1 if it has none, and what else it has; raise if the weight is invalid.

    stable-diffusion-webui takes two weights, for the text encoder and the U-Net, by position or as ``te=`` and
    ``unet=``; extensions add further keys, such as ``lbw=``.
    """
    parts = [part.strip() for part in (tag["weights"] or "").split(":") if part.strip()]
    numbers = [n for n, part in enumerate(parts) if "=" not in part]
    numbers += [n for n, part in enumerate(parts) if part.startswith("unet=")]
    chosen = parts[numbers[0]].removeprefix("unet=") if numbers else "1"
    rest = [part for n, part in enumerate(parts) if [n] != numbers[:1]]
    try:
        weight = float(chosen)
    except ValueError:
        weight = _MAX_WEIGHT + 1
    if not -_MAX_WEIGHT <= weight <= _MAX_WEIGHT:
        raise FluxdropError(
            f"The weight in {tag[0]} is not a number from {-_MAX_WEIGHT:g} to {_MAX_WEIGHT:g}",
            kind="prompt",
        )
    return weight, rest
