"""Values as they are written in TOML."""

from __future__ import annotations

import json
from typing import Any


def toml_value(value: Any) -> str:
    """Return *value* as it is written in TOML on one line. Keys of tables without a value are left out.

    *value* consists of strings, numbers, booleans, lists and dictionaries; what is none of these is written as
    the string of it.
    """
    if isinstance(value, dict):
        pairs = [
            f"{_key(key)} = {toml_value(part)}" for key, part in value.items() if part is not None
        ]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, float):
        return repr(value)
    # JSON's strings, integers, lists, true and false are also TOML's, except that TOML escapes DEL, and has no
    # surrogates, which JSON's escapes of some characters are.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else toml_value(key)
