"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from fluxdrop.config import Settings

README = Path(__file__).parents[2] / "README.md"


def settings_table() -> str:
    """The settings, as the README has to show them."""
    rows = ["| key | default | what it is |", "| --- | --- | --- |"]
    defaults = Settings()
    for field in msgspec.structs.fields(Settings):
        description = field.type.__metadata__[-1].description
        value = getattr(defaults, field.name)
        # As it is written in fluxdrop.toml.
        default = str(value).lower() if isinstance(value, bool) else value
        default = {} if isinstance(value, msgspec.Struct) else default
        shown = "empty" if default == "" else f"`{default}`"
        rows.append(f"| `{field.name}` | {shown} | {description} |")
    return "\n".join(rows)


def test_settings() -> None:
    """The README's table of settings is what the code has."""
    shown = re.search(r"<!-- settings -->\n(.*)\n<!-- /settings -->", README.read_text(), re.DOTALL)

    assert shown is not None
    assert settings_table() == shown[1]
