"""Warn when a pipeline's text encoders truncate a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A tokenizer without a limit has a huge, meaningless model_max_length.
_UNLIMITED_TOKENS = 100_000


def truncation_warnings(pipe: Any, call: Mapping[str, Any], what: str, text: str) -> list[str]:
    """Return a warning for each tokenizer of a pipeline that truncates *text*, with the part that is cut.

    Args:
        pipe: The diffusers pipeline.
        call: The parameters of the pipeline's ``__call__``, as `inspect.signature` returns them.
        what: What the warning calls the text.
        text: The text to be encoded.
    """
    tokenizers = {
        name: tokenizer
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3")
        if (tokenizer := getattr(pipe, name, None)) is not None
    }
    warnings: dict[str, None] = {}
    for name, tokenizer in tokenizers.items():
        limit = _token_limit(tokenizer, call)
        ids = tokenizer(text, truncation=False, verbose=False).input_ids
        if limit >= _UNLIMITED_TOKENS or len(ids) <= limit:
            continue
        # The pipelines truncate in this way: the last token that is read is the end token.
        cut = tokenizer.decode(ids[limit - 1 : -1], skip_special_tokens=True).strip()
        by = f" by the {name}" if len(tokenizers) > 1 else ""
        warnings[f"The {what} has {len(ids)} tokens, of which {limit} are read{by}; cut: {cut}"] = (
            None
        )
    return list(warnings)


def _token_limit(tokenizer: Any, call: Mapping[str, Any]) -> int:
    """Return the number of tokens at which the pipeline truncates the text."""
    limit = int(tokenizer.model_max_length)
    # FLUX and SD3 pass their T5 encoder the limit of the pipeline.
    if "T5" in type(tokenizer).__name__ and "max_sequence_length" in call:
        return int(call["max_sequence_length"].default)
    return limit
