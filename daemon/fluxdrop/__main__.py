"""The program ``fluxdrop``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command on the command line.

    An error that a person can act on, or any error of the filesystem, becomes one sentence on stderr and
    exit code 2; with --json it is also an object on stdout.
    """
    from fluxdrop.cli import app

    try:
        app()
    except Exception as error:
        from fluxdrop.cli.refusal import refuse

        sys.exit(refuse(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
