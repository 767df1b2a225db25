"""``fluxdrop submit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json

if TYPE_CHECKING:
    from fluxdrop.jobs.submission import Submitted
    from fluxdrop.layout import Root


def submit(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Pictures and prompt files.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt; may be given several times.")
    ] = None,
    root: RootOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the results; exit code 1 if one failed.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Drop copies of files, or prompts, into the inbox, each whole and under a name that is free."""
    from fluxdrop.errors import FluxdropError
    from fluxdrop.jobs.submission import submit_file, submit_prompt
    from fluxdrop.layout import find_root

    served = find_root(root)
    if not files and not prompt:
        raise FluxdropError("There is nothing to submit", hint="Name files, or give --prompt TEXT.")
    missing = [str(path) for path in files or [] if not path.is_file()]
    if missing:
        raise FluxdropError(f"Not a file: {', '.join(missing)}")
    submitted = [submit_file(served, path) for path in files or []]
    submitted += [submit_prompt(served, text) for text in prompt or []]
    if wait:
        _await(served, submitted, json_output)
    elif json_output:
        print_json([{"file": item.file} for item in submitted])
    else:
        for item in submitted:
            typer.echo(f"inbox/{item.file}")


def _await(root: Root, submitted: list[Submitted], json_output: bool) -> None:
    from fluxdrop.cli.progress import spinner
    from fluxdrop.cli.records import print_rows, row_as_dict
    from fluxdrop.jobs.submission import wait_for

    with spinner("Waiting for results") as say:
        rows = wait_for(root, submitted, lambda left: say(f"Waiting for {left} results"))
    if json_output:
        print_json([row_as_dict(root, row) for row in rows])
    else:
        print_rows(root, rows)
    if any(row.state == "failed" for row in rows):
        raise typer.Exit(1)
