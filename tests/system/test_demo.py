"""The table that `make demo` prints."""

from __future__ import annotations

import importlib.util
import io
from contextlib import closing
from pathlib import Path

from rich.console import Console

from fluxdrop.files.layout import Root
from fluxdrop.jobs.store import JobFilter, Store
from fluxdrop.publish.publisher import Publisher
from support import jobs

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_names_are_whole(root: Root) -> None:
    """On 80 columns the name of each result is on one line, also if the demo ran before."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    text = io.StringIO()
    with closing(Store(root.database)) as store:
        for _ in range(10):
            dropped = [jobs.claimed(root, path.name) for path in demo.SAMPLES]
            Publisher(root, store).publish([jobs.done(jobs.job_in(folder)) for folder in dropped])
        rows = store.select(JobFilter())

    demo.print_results(Console(file=text, width=80, highlight=False), root, rows)

    lines = text.getvalue().splitlines()
    assert {f"{row.record}" for row in rows} <= {line.split()[0] for line in lines}
    assert max(map(len, lines)) <= 80
