"""Run every benchmark, print the table, and keep it in benchmarks/results.json."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import gallery, generation, pictures, pipe
from fluxdrop.cli.progress import spinner
from fluxdrop.provision import find_julia

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Measure, print and keep."""
    if find_julia() is None:
        raise SystemExit("Nothing to measure: there is no Julia here. Run `fluxdrop setup`.")
    found = []
    with spinner("Measuring") as say:
        for benchmark in (pipe, pictures, gallery, generation):
            say(f"Measuring: {benchmark.__doc__}")
            found += list(benchmark.rows())
    table = Table("what", "target", "figure", "verdict", box=None, pad_edge=False)
    for row in found:
        table.add_row(
            row.what, row.target, f"{row.figure:.3g} {row.unit}", "met" if row.met else "not met"
        )
    Console().print(table)
    RESULTS.write_text(json.dumps([row._asdict() for row in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
