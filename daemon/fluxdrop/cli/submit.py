"""``fluxdrop submit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import generation_bar
from fluxdrop.cli.tables import print_rows
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root, find_root
from fluxdrop.jobs.row_facts import row_as_dict
from fluxdrop.requests.submission import (
    Submitted,
    submit_file,
    submit_prompt,
    submit_regeneration,
    wait_for,
)


def submit(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Pictures and prompt files.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="TEXT", help="Submit this prompt. Can be given several times."
        ),
    ] = None,
    regenerate: Annotated[
        list[Path] | None,
        typer.Option(
            "--regenerate",
            metavar="PNG",
            help="Generate this picture again, from the parameters stored in it. Can be given several times.",
        ),
    ] = None,
    root: RootOption = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the results; exit code 1 if one failed.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Drop copies of files, or prompts, into the inbox.

    Each appears there complete, under a name that is not taken.
    """
    served = find_root(root)
    if not (files or prompt or regenerate):
        raise FluxdropError("There is nothing to submit", hint="Name files, or give --prompt TEXT.")
    missing = [str(path) for path in (*(files or []), *(regenerate or [])) if not path.is_file()]
    if missing:
        raise FluxdropError(f"Not a file: {', '.join(missing)}")
    submitted = [submit_file(served, path) for path in files or []]
    submitted += [submit_prompt(served, text) for text in prompt or []]
    submitted += [submit_regeneration(served, path) for path in regenerate or []]
    if wait:
        _wait_and_print(served, submitted, json_output)
    elif json_output:
        print_json([{"file": item.file} for item in submitted])
    else:
        for item in submitted:
            typer.echo(f"inbox/{item.file}")


def _wait_and_print(root: Root, submitted: list[Submitted], json_output: bool) -> None:
    """Wait for the results of *submitted* and print them.

    Raises:
        typer.Exit: With code 1, when a job failed.
    """
    # This import loads numpy, which `submit` without --wait does not need.
    from fluxdrop.service.reporting.heartbeat import read

    with generation_bar() as show:
        rows = wait_for(
            root,
            submitted,
            lambda left: show(left, status.current if (status := read(root.heartbeat)) else None),
        )
    if json_output:
        print_json([row_as_dict(root, row) for row in rows])
    else:
        print_rows(root, rows)
    if any(row.state == "failed" for row in rows):
        raise typer.Exit(1)
