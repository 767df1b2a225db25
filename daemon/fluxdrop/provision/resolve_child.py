"""Run juliapkg's resolver and write the result to the file named on the command line.

This is a separate program because juliapkg prints and waits without limit. Run it with ``python -P``,
because juliapkg reads ``juliapkg.json`` from the first folder on ``sys.path``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def main(answer: Path, force: bool) -> None:
    """Resolve; write executable, project and version as JSON to *answer*. With *force*, resolve anew."""
    # juliapkg looks for PACKAGE/juliapkg.json in the folders of sys.path, which with ``python -P`` may
    # lack the one that contains this package.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    import juliapkg
    from juliapkg.state import STATE

    try:
        juliapkg.resolve(force=force)
    except subprocess.CalledProcessError as problem:
        # juliapkg captures the output of some of its Julia calls and does not print it.
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
