"""Syntax of prompts that other programs or their extensions replace before they generate, and that stays text here."""

from __future__ import annotations

import re

_SYNTAX = {
    # stable-diffusion-webui-dynamic-prompts and ComfyUI-Impact-Pack
    "Wildcards are": re.compile(r"__[\w/*.-]*\w[\w/*.-]*__"),
    "Variants are": re.compile(r"\{[^{}]*\|[^{}]*\}"),
    # stable-diffusion-webui, "Prompt editing" and "Alternating words are": in square brackets that no backslash escapes
    "Prompt editing is": re.compile(r"(?<!\\)\[[^\[\]]*:\s*\d*\.?\d+\s*\]"),
    "Alternating words are": re.compile(r"(?<!\\)\[[^\[\]]*\|[^\[\]]*\]"),
}
_MAX_SHOWN = 60


def syntax_warnings(prompt: str) -> list[str]:
    """Return a warning for each kind of such syntax in *prompt*, with an example from it."""
    warnings = []
    for kind, pattern in _SYNTAX.items():
        if (match := pattern.search(prompt)) is not None:
            shown = match[0] if len(match[0]) <= _MAX_SHOWN else f"{match[0][:_MAX_SHOWN]}..."
            warnings.append(f"{kind} not supported: {shown} is drawn as it stands.")
    return warnings
