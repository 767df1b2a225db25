"""The commands, as their groups know them and as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from fluxdrop.cli import app
from fluxdrop.cli.lazy import LazyCommand


def loaded(command: Any) -> Any:
    """*command*, or what it stands for."""
    return command.load() if isinstance(command, LazyCommand) else command


def known() -> Iterator[tuple[str, Any]]:
    """All commands and groups by their words, as their groups know them."""
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        words, group = waiting.pop()
        for name, command in getattr(loaded(group), "commands", {}).items():
            below = f"{words} {name}".strip()
            yield below, command
            waiting.append((below, command))
