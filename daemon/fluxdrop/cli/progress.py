"""Progress bars: on a terminal, and nothing at all in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def steps_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, moved by calls with the steps done and all steps; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda step, steps: progress.update(task, completed=step, total=steps)


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """A line on stderr that shows that something goes on; the call changes its text."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield lambda changed: status.update(changed)
