"""``fluxdrop gallery``."""

from __future__ import annotations

import typer

from fluxdrop.cli.options import JsonOption, RootOption, print_json
from fluxdrop.cli.progress import spinner
from fluxdrop.files.layout import find_root
from fluxdrop.gallery.gallery import Gallery, page_of
from fluxdrop.ownership import narrow_umask


def gallery(root: RootOption = None, json_output: JsonOption = False) -> None:
    """Rebuild outputs/index.html from the results in outputs/.

    Results that were deleted are no longer shown.
    """
    narrow_umask()
    served = find_root(root)
    served.create()
    with spinner("Reading results") as say:
        summary = Gallery(served).rebuild(lambda done: say(f"Reading results: {done:,}"))
    page = page_of(served)
    if json_output:
        print_json({"page": str(page), "results": summary.total, **summary.states})
    else:
        typer.echo(f"{page} shows {summary.total:,} results. Open it in a browser.")
