"""Run juliapkg's resolver and write the result to the file named on the command line.

This is a separate program because juliapkg prints and waits without limit. Run it with ``python -P``,
because juliapkg reads ``juliapkg.json`` from the first folder on ``sys.path``. At the end of its standard input it
kills its process group, which also has Julia in it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
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


def end_with_parent() -> None:
    """Kill the process group at the end of standard input, and let nothing else read from it."""
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]), force="--force" in sys.argv[2:])
