"""Run every benchmark, print the table, and keep it in benchmarks/results.json.

python -m benchmarks          measure everything
python -m benchmarks NAME...  measure some of the modules, without keeping it
python -m benchmarks --plot   measure what the plot in docs/performance.md shows, and draw it
python -m benchmarks --docs   put what was kept into docs/performance.md
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    cluster,
    curves,
    database,
    folders,
    gallery,
    generation,
    gpu,
    large_pictures,
    latency,
    networks,
    pictures,
    pipe,
    precision,
    prompts,
    start,
    swap,
    throughput,
)
from benchmarks.table import Row
from fluxdrop.cli.progress import spinner
from fluxdrop.provision import find_julia

RESULTS = Path(__file__).with_name("results.json")
DOCS = Path(__file__).parents[1] / "docs" / "performance.md"
_BEGIN, _END = "<!-- the table of a run -->\n", "<!-- its end -->\n"
_HEAD = ("what", "target", "figure", "verdict")
_MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        start,
        database,
        pipe,
        pictures,
        latency,
        throughput,
        large_pictures,
        swap,
        folders,
        networks,
        precision,
        gallery,
        generation,
        prompts,
        cluster,
        gpu,
    )
}


def main() -> None:
    """Measure and print, or write what was kept into the docs."""
    wanted = sys.argv[1:]
    if wanted == ["--docs"]:
        return _write_docs([Row(**row) for row in json.loads(RESULTS.read_text())])
    if wanted == ["--plot"]:
        with _measuring() as say:
            say("Measuring: rates and latencies")
            return curves.draw(curves.measure())
    if unknown := set(wanted) - set(_MODULES):
        raise SystemExit(f"No benchmark is called {', '.join(unknown)}: {', '.join(_MODULES)}.")
    if find_julia() is None:
        raise SystemExit("Nothing to measure: there is no Julia here. Run `fluxdrop setup`.")
    found = []
    with _measuring() as say:
        for name in wanted or _MODULES:
            say(f"Measuring: {_MODULES[name].__doc__}")
            found += list(_MODULES[name].rows())
    table = Table(*_HEAD, box=None, pad_edge=False)
    for row in found:
        table.add_row(*row.cells())
    Console().print(table)
    if not wanted:
        RESULTS.write_text(json.dumps([row._asdict() for row in found], indent=2) + "\n")
        with _measuring() as say:
            say("Measuring: rates and latencies")
            curves.draw(curves.measure())
    return None


@contextmanager
def _measuring() -> Iterator[Callable[[str], None]]:
    """Show what is said while something is measured."""
    # What the benchmarks made is removed after the last: some filesystems take new files slowly for
    # minutes after thousands were removed.
    with tempfile.TemporaryDirectory() as tempfile.tempdir, spinner("Measuring") as say:
        yield say


def _write_docs(rows: list[Row]) -> None:
    julia = find_julia()
    system = f"{platform.system()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    lines = [f"{system}, Julia {julia.version if julia else 'none'}:", "", _line(*_HEAD)]
    lines += [_line(*["---"] * len(_HEAD)), *(_line(*row.cells()) for row in rows)]
    before, rest = DOCS.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    DOCS.write_text(before + _BEGIN + "\n".join(lines) + "\n" + _END + after)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
