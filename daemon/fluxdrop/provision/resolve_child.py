"""Run juliapkg's resolver and write what it found to the file named on the command line.

A program of its own because juliapkg prints and waits without limit, and because it takes a
``juliapkg.json`` from whatever folder is first on ``sys.path``: run it with ``python -P``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def main(answer: Path, force: bool) -> None:
    """Resolve and write executable, project and version as JSON to ``answer``."""
    # juliapkg looks for PACKAGE/juliapkg.json in sys.path's folders, which with ``python -P``
    # may lack the one that this very package was imported from.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    import juliapkg
    from juliapkg.state import STATE

    try:
        juliapkg.resolve(force=force)
    except subprocess.CalledProcessError as problem:
        # juliapkg catches what some of its Julia calls say, and drops it.
        print(problem.stderr or "")
        raise
    found = {
        "executable": str(juliapkg.executable()),
        "project": str(juliapkg.project()),
        "version": str(STATE["version"]),
    }
    answer.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), force="--force" in sys.argv[2:])
