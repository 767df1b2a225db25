"""``fluxdrop config``."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from fluxdrop.cli.options import EngineOption, JsonOption, LogLevelOption, RootOption, print_json
from fluxdrop.cli.resolve import optional_root
from fluxdrop.config import Settings, sources


def config(
    root: RootOption = None,
    engine: EngineOption = None,
    log_level: LogLevelOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show each setting and where its value comes from.

    That is a flag, an environment variable, `fluxdrop model use`, fluxdrop.toml or the default.
    The values are written as in fluxdrop.toml.
    """
    served = optional_root(root)
    found = sources(served.path if served else None, {"engine": engine, "log_level": log_level})
    default = Settings()
    rows = [
        (key, found[key].value, found[key].place)
        if key in found
        else (key, getattr(default, key), "default")
        for key in Settings.__struct_fields__
    ]
    if json_output:
        shown = {key: {"value": value, "from": place} for key, value, place in rows}
        print_json(msgspec.to_builtins(shown))
        return
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for key, value, place in rows:
        table.add_row(
            key,
            _as_toml(msgspec.to_builtins(value)),
            place,
            style=None if place == "default" else "bold",
        )
    Console(markup=False, highlight=False).print(table)


def _as_toml(value: Any) -> str:
    """Return *value* as it is written in TOML on one line. Keys of tables without a value are left out."""
    if isinstance(value, dict):
        pairs = [
            f"{_as_toml_key(key)} = {_as_toml(part)}"
            for key, part in value.items()
            if part is not None
        ]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, float):
        return repr(value)
    # JSON's strings, integers, true and false are also TOML's, except that TOML escapes DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _as_toml_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _as_toml(key)
