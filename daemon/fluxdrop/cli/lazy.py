"""A command group that imports a command only when it is called; names and summaries need no import."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from fluxdrop.cli.arguments import Command


class Entry(NamedTuple):
    """Where a command of a group is, and its summary."""

    target: str
    """The function or `typer.Typer`, as ``module:name``."""
    summary: str
    """The first sentence of its docstring or help."""


class LazyCommand(TyperCommand):
    """A placeholder for a command in the help and the completions of its group."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.summary, rich_markup_mode=None)
        self._target = entry.target

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Load the command and make its context; from then on it replaces this placeholder."""
        return self.load().make_context(*args, **kwargs)

    def load(self) -> Any:
        """Import the command and return it as a typer command or group."""
        module, _, attribute = self._target.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name, cls=Command)(found)
        return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """A group of commands that are loaded when they are called."""

    entries: ClassVar[Mapping[str, Entry]]
    """The commands by name, in the order of the help."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in self.entries.items():
            self.add_command(LazyCommand(name, entry))
