"""The program ``fluxdrop``."""

from __future__ import annotations

import sys

from fluxdrop.cli import app


def main() -> None:
    """Run the command on the command line.

    An error that a person can act on, or any error of the filesystem, becomes one sentence on stderr and
    exit code 2; with --json it is also an object on stdout.
    """
    try:
        app()
    except Exception as error:
        # This loads structlog, which takes longer than `status`.
        from fluxdrop.cli.refusal import refuse

        sys.exit(refuse(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
