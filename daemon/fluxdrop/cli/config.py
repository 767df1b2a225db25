"""``fluxdrop config``."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table

from fluxdrop.cli.options import EngineOption, JsonOption, LogLevelOption, RootOption, print_json
from fluxdrop.cli.resolve import optional_root
from fluxdrop.config import Settings, sources
from fluxdrop.toml_text import toml_value


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
            toml_value(msgspec.to_builtins(value)),
            place,
            style=None if place == "default" else "bold",
        )
    Console(markup=False, highlight=False).print(table)
