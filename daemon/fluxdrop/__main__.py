"""``fluxdrop`` on the command line."""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Run the command.

    What a person can act on is one sentence on stderr and exit code 2; with --json it is also an
    object on stdout.
    """
    from fluxdrop.cli import app
    from fluxdrop.errors import FluxdropError

    try:
        app()
    except FluxdropError as error:
        print(f"fluxdrop: {error}", file=sys.stderr)
        if "--json" in sys.argv:
            facts = {"kind": error.kind, "message": error.message, "hint": error.hint}
            print(json.dumps({"error": facts}, indent=2, ensure_ascii=False))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
