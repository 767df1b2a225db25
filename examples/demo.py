"""The demo: a daemon on this checkout, a prompt and a picture dropped into its inbox, the results."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fluxdrop.cli.progress import spinner
from fluxdrop.files.layout import Root, holder
from fluxdrop.jobs.store import Row
from fluxdrop.records.result import Result, decode
from fluxdrop.requests.submission import submit_file, wait_for

HERE = Path(__file__).parent
SAMPLES = (HERE / "large-red-circle.txt", HERE / "angular_star_01.png")
_NAME_WIDTH = len("outputs/large-red-circle-10.json")
"""The other columns fit beside it; the last one is wrapped if they do not."""


def main() -> int:
    """Run the demo; 0 if every sample came through."""
    root = Root(HERE.parent)
    root.create()
    daemon = None
    if holder(root) is None:
        daemon = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fluxdrop",
                "run",
                "--root",
                str(root.path),
                "--log-level",
                "warning",
            ]
        )
    try:
        with spinner("Starting the daemon") as say:
            while daemon is not None and holder(root) is None:
                if daemon.poll() is not None:
                    return daemon.returncode
                time.sleep(0.1)
            submitted = [submit_file(root, path) for path in SAMPLES]
            say("Generating and classifying; the first picture loads torch")
            rows = wait_for(root, submitted, lambda _left: None)
    finally:
        if daemon is not None:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()
    console = Console(highlight=False)
    print_results(console, root, rows)
    console.print(
        "\nThe pictures are in generated_images/ and beside their JSON in outputs/,"
        " what the model saw in preprocessed_images/."
        "\nDrop your own .txt or .png into inbox/ while `make run` runs."
    )
    return 0 if all(row.state == "done" for row in rows) else 1


def print_results(console: Console, root: Root, rows: Sequence[Row]) -> None:
    """Print a table of *rows*, with the name of each result on one line of 80 columns, and what failed."""
    table = Table(box=None, pad_edge=False)
    table.add_column("result", no_wrap=True, min_width=_NAME_WIDTH)
    for title in ("label", "p", "total ms"):
        table.add_column(title, no_wrap=True)
    table.add_column("layers")
    for row in rows:
        record = decode((root.path / str(row.record)).read_bytes())
        if not isinstance(record, Result):
            console.print(f"{row.source} failed: {record.error.message}", markup=False)
            continue
        engine = record.model
        table.add_row(
            escape(str(row.record)),
            row.label,
            f"{row.probability:.4f}",
            f"{sum(record.timings_ms.values()):.0f}",
            f"{engine.backend}, Julia {engine.julia}" if engine.julia else engine.engine,
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
