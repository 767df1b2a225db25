"""What a pipeline's text encoders do not read of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A tokenizer that knows no limit has a number without meaning here.
_NO_LIMIT = 100_000


def cut_warnings(pipe: Any, call: Mapping[str, Any], what: str, text: str) -> list[str]:
    """A warning for each tokenizer of *pipe* that *text* is too long for, with the part it cuts.

    *call* are the parameters of the pipeline's call; *what* is the text's name in the warning.
    """
    tokenizers = {
        name: tokenizer
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3")
        if (tokenizer := getattr(pipe, name, None)) is not None
    }
    warnings: dict[str, None] = {}
    for name, tokenizer in tokenizers.items():
        most = _most_tokens(tokenizer, call)
        ids = tokenizer(text, truncation=False, verbose=False).input_ids
        if most >= _NO_LIMIT or len(ids) <= most:
            continue
        # As the pipelines cut it: an end token takes the last place.
        cut = tokenizer.decode(ids[most - 1 : -1], skip_special_tokens=True).strip()
        by = f" by the {name}" if len(tokenizers) > 1 else ""
        warnings[f"The {what} has {len(ids)} tokens, of which {most} are read{by}; cut: {cut}"] = (
            None
        )
    return list(warnings)


def _most_tokens(tokenizer: Any, call: Mapping[str, Any]) -> int:
    most = int(tokenizer.model_max_length)
    # FLUX and SD3 give their T5 encoder a limit of the pipeline's own.
    if "T5" in type(tokenizer).__name__ and "max_sequence_length" in call:
        return int(call["max_sequence_length"].default)
    return most
