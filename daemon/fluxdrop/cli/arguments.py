"""What a command is given on its command line, before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer import Typer
from typer.core import TyperCommand
from typer.models import TyperPath

from fluxdrop.errors import FluxdropError


class Command(TyperCommand):
    """A command that refuses, with FluxdropError, text that is no UTF-8, which nothing but a file's name can be,
    and an empty path, which would mean the working folder."""

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        for parameter in self.params:
            is_path = isinstance(parameter.type, TyperPath)
            for value in _texts(ctx.params.get(parameter.name or "")):
                if is_path and not value:
                    raise _refusal(parameter, "is empty")
                if not is_path and not _is_utf8(value):
                    raise _refusal(parameter, "is not UTF-8")
        return super().invoke(ctx)


def check_arguments(app: Typer) -> None:
    """Have each command of *app* be a `Command`."""
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            check_arguments(group.typer_instance)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _texts(part)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(parameter: Any, what: str) -> FluxdropError:
    if parameter.param_type_name == "option":
        name = max(parameter.opts, key=len)
    else:
        name = (parameter.metavar or parameter.name).upper().removesuffix("...")
    return FluxdropError(f"{name} {what}", kind="usage")
