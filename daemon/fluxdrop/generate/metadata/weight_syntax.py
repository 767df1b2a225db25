"""Other programs' syntax of weights, translated to stable-diffusion-webui's, which `prompt_weights` reads."""

from __future__ import annotations

import re
from collections.abc import Callable

# compel, "Syntax features": "(words)1.3", "(words)++", "word--"; a plus is 1.1, a minus 0.9.
_COMPEL_GROUP = re.compile(r"\(([^()]{1,2000})\)(\++|-+|\d{0,3}\.?\d{1,6})?")
_COMPEL_WORD = re.compile(
    r"(?<![^\s,(])([^\s,():+-][^\s,():+]{0,100}?)(\+{1,20}|-{1,20})(?=[\s,)]|$)"
)
# NovelAI's documentation, "Strengthening and weakening vectors"
_NOVELAI_FACTOR = 1.05
_NOVELAI_NUMBER = re.compile(r"(-?\d{0,3}\.?\d{1,6})::([^:]{1,2000})::")


def from_invokeai(prompt: str) -> str:
    """Translate the weights of InvokeAI, which are compel's. Brackets without a weight mean none there."""
    prompt = re.sub(r"([\[\]])", r"\\\1", prompt)
    weighted = _COMPEL_WORD.sub(lambda m: f"({m[1]}:{_compel_weight(m[2]):g})", prompt)
    return _COMPEL_GROUP.sub(_compel_group, weighted)


def from_novelai(prompt: str) -> str:
    """Translate the weights of NovelAI: ``{words}`` and ``[words]`` are 1.05, ``1.3::words::`` is a number."""
    prompt = re.sub(r"([()])", r"\\\1", prompt)
    numbered = _NOVELAI_NUMBER.sub(r"(\2:\1)", prompt)
    for opening, closing, weight in (("{", "}", _NOVELAI_FACTOR), ("[", "]", 1 / _NOVELAI_FACTOR)):
        numbered = numbered.replace(opening, "(").replace(closing, f":{weight:.4g})")
    return numbered


def from_comfyui(prompt: str) -> str:
    """Translate the weights of ComfyUI and SwarmUI: square brackets are text there."""
    return re.sub(r"(?<!\\)([\[\]])", r"\\\1", prompt)


TRANSLATIONS: dict[str, Callable[[str], str]] = {
    "InvokeAI": from_invokeai,
    "NovelAI": from_novelai,
}
"""By program, of those whose data is not recognised by itself; what reads the others' data translates it."""


def _compel_group(match: re.Match[str]) -> str:
    text, weight = match[1], match[2]
    if weight is None and re.fullmatch(r".*:[\d.]+", text, re.DOTALL):
        # A word that was translated before.
        return match[0]
    return f"({text}:{_compel_weight(weight):g})" if weight else f"\\({text}\\)"


def _compel_weight(weight: str) -> float:
    if weight[0] in "+-":
        return round(float((1.1 if weight[0] == "+" else 0.9) ** len(weight)), 4)
    return float(weight)
