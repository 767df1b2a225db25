"""Show progress on stderr if it is a terminal, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from fluxdrop.cli.lines import progress_text

if TYPE_CHECKING:
    from fluxdrop.service.reporting.heartbeat import Current


@contextmanager
def steps_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar for the body of a ``with``.

    Yields:
        A function that takes the steps done and all steps; None if stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda step, steps: progress.update(task, completed=step, total=steps)


@contextmanager
def generation_bar() -> Iterator[Callable[[int, Current | None], None]]:
    """Show a bar for the body of a ``with`` that waits for results.

    Yields:
        A function that takes the number of results to come, and what is being generated, if anything.
    """
    if not sys.stderr.isatty():
        yield lambda _left, _current: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[progress]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Waiting for results", total=None, progress="")

        def show(left: int, current: Current | None) -> None:
            if current is None:
                progress.update(
                    task, description=f"Waiting for {left} results", total=None, progress=""
                )
                return
            progress.update(
                task,
                description=f"{left} to come; {current.file}",
                completed=current.step,
                total=current.steps,
                progress=progress_text(
                    current.step, current.steps, current.steps_per_second, current.seconds_left
                ),
            )

        yield show


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner and *text* for the body of a ``with``.

    Yields:
        A function that changes the text.
    """
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    with Console(stderr=True).status(text) as status:
        yield lambda changed: status.update(changed)
