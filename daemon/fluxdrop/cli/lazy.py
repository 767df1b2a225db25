"""A command group that knows its commands' names and summaries, and imports a command when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from fluxdrop.cli.arguments import Command


class Entry(NamedTuple):
    """A command of a group: the function or `typer.Typer` at *target*, ``module:name``, and the
    first sentence of its docstring or help.
    """

    target: str
    summary: str


class LazyCommand(TyperCommand):
    """Stands for a command in the help and the completions of its group."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.summary, rich_markup_mode=None)
        self._target = entry.target

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Make a context of the command itself: from here on it takes this one's place."""
        return self.load().make_context(*args, **kwargs)

    def load(self) -> Any:
        """Import the command and return it, as a typer command or group."""
        module, _, attribute = self._target.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name, cls=Command)(found)
        return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """A group of *entries*, by their names."""

    entries: ClassVar[Mapping[str, Entry]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in self.entries.items():
            self.add_command(LazyCommand(name, entry))
