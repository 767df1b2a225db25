"""Syntax of prompts that other programs or their extensions replace before they generate, and that stays text here."""

from __future__ import annotations

import re

# Lengths are limited, so that any text takes linear time.
_SYNTAX = {
    # stable-diffusion-webui-dynamic-prompts and ComfyUI-Impact-Pack
    "Wildcards are": re.compile(r"__[^\W_][\w/*., -]{0,100}?__"),
    "Variants are": re.compile(r"\{[^{}|]{0,500}\|[^{}]{0,500}\}"),
    # stable-diffusion-webui, "Prompt editing" and "Alternating words": in square brackets that no backslash escapes
    "Prompt editing is": re.compile(
        r"(?<!\\)\[[^\[\]]{0,500}:\s{0,9}(?:\d{1,6}|\d{0,6}\.\d{1,6})\s{0,9}\]"
    ),
    "Alternating words are": re.compile(r"(?<!\\)\[[^\[\]|]{0,500}\|[^\[\]]{0,500}\]"),
    "SwarmUI's tags are": re.compile(
        r"<(?:random|wildcard|alternate|fromto|repeat|segment|object)\b[^<>]{0,500}>"
    ),
    "Options such as Midjourney's are": re.compile(
        r"(?:^|(?<=\s))--[a-z]\w{1,20}(?: [^\s-]\S{0,20})?"
    ),
}
UNSUPPORTED_BRACKETS = re.compile(
    "|".join(_SYNTAX[kind].pattern for kind in ("Prompt editing is", "Alternating words are"))
)
"""Matches prompt editing and alternating words."""
_MAX_SHOWN = 60


def syntax_warnings(prompt: str) -> list[str]:
    """Return a warning for each kind of such syntax in *prompt*, with an example from it."""
    warnings = []
    for kind, pattern in _SYNTAX.items():
        if (match := pattern.search(prompt)) is not None:
            shown = match[0] if len(match[0]) <= _MAX_SHOWN else f"{match[0][:_MAX_SHOWN]}..."
            warnings.append(f"{kind} not supported: {shown} is drawn as it stands.")
    return warnings
