"""Check the arguments of a command before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from fluxdrop.errors import FluxdropError


class Command(TyperCommand):
    """A command that checks its arguments and options while it parses them.

    It refuses empty paths, which would mean the working folder, and text that is not UTF-8, unless
    it is a path.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse *args*; see `TyperCommand.parse_args`.

        Raises:
            FluxdropError: Kind ``usage``, when a path is empty or another text is not UTF-8.
        """
        words = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            # Check the original texts: a Path no longer shows that its text was empty.
            given, _, _ = self.make_parser(ctx).parse_args(args=words)
            for parameter in self.params:
                self._check(parameter, given.get(parameter.name or ""))
        return rest

    def _check(self, parameter: Any, value: object) -> None:
        for text in _texts(value):
            if text and _is_utf8(text):
                continue
            is_path = _has_path(get_type_hints(self.callback)[parameter.name])
            if is_path and not text:
                raise _refusal(parameter, "is empty")
            if not is_path and text:
                raise _refusal(parameter, "is not UTF-8")


def in_range(low: float, high: float) -> Callable[[float | None], float | None]:
    """Return a callback for an option of a number, which refuses what is not from *low* to *high*.

    The ranges of typer are shown as ``0<=x<=9`` in the help and in the refusal.
    """

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is not from {low} to {high}.")
        return value

    return check


def _has_path(hint: object) -> bool:
    return hint is Path or any(map(_has_path, get_args(hint)))


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
