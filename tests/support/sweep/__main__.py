"""`make models`, or `PYTHONPATH=tests python -m support.sweep`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from support.originals import torchvision
from support.sweep import timm_models
from support.sweep.adding import Result
from support.sweep.networks import makers, missing, results
from support.sweep.photographs import photograph_files


def table_of(found: Sequence[Result]) -> Table:
    """All results, one per line."""
    table = Table(
        "library", "network", "form", "largest difference", "same first", "float64", "engine", ""
    )
    for result in found:
        numbers = (result.difference, result.rounding, result.parity)
        difference, rounding, parity = ("" if n is None else f"{n:.1e}" for n in numbers)
        first = f"{result.same_first} of {result.pictures}" if difference else ""
        told = "" if result.passed else result.problem or "differs"
        table.add_row(
            result.library, result.name, result.form, difference, first, rounding, parity, told
        )
    return table


def main() -> int:
    """Return 1 if a network's answers are not its library's."""
    parser = argparse.ArgumentParser(
        prog="python -m support.sweep",
        description="Add models of timm and transformers, each by one command, and compare them on photographs.",
    )
    parser.add_argument("names", nargs="*", help="networks; default: all")
    parser.add_argument("--library", choices=("timm", "transformers"))
    parser.add_argument("--opset", type=int, nargs="*", default=timm_models.OPSETS)
    parser.add_argument(
        "--results", type=Path, help="keep results in this file; those in it are not repeated"
    )
    chosen = parser.parse_args()
    if missing():
        parser.error(
            f"not installed: {', '.join(missing())}; pip install 'fluxdrop[torch]' scikit-image"
        )
    # The libraries' own bars would be in the way of this one's.
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with warnings.catch_warnings(action="ignore"):
        torchvision()
    kept: list[Result] = []
    if chosen.results and chosen.results.exists():
        lines = chosen.results.read_bytes().splitlines()
        kept = [msgspec.json.decode(line, type=Result) for line in lines]
    done = {(result.library, result.name) for result in kept}
    todo = {
        key: make
        for key, make in makers(chosen.opset).items()
        if chosen.library in (None, key[0]) and (not chosen.names or key[1] in chosen.names)
    }
    console = Console(width=None if sys.stdout.isatty() else 200)
    with Progress(console=console) as progress:
        task = progress.add_task("networks", total=len(todo))
        for (library, name), make in todo.items():
            progress.update(task, description=f"{library} {name}")
            if (library, name) not in done:
                with tempfile.TemporaryDirectory(prefix="fluxdrop-sweep-") as scratch:
                    found = list(results(library, name, make, photograph_files(), Path(scratch)))
                kept += found
                if chosen.results:
                    with chosen.results.open("ab") as file:
                        file.writelines(msgspec.json.encode(result) + b"\n" for result in found)
                for result in found:
                    if not result.passed:
                        progress.console.print(f"{library} {name} {result.form}: {result.problem}")
            progress.advance(task)
    console.print(table_of(kept))
    passed = sum(result.passed for result in kept)
    console.print(f"{passed} of {len(kept)} folders answer as their own library does.")
    return 0 if passed == len(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
