"""Ask a Ray head something without a token: ``python -m fluxdrop.cluster.token_probe HOST:PORT``.

Prints ``refused``, as it should be, or ``accepted``, or why the head cannot be reached.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Ask, and print what happened."""
    from ray._raylet import GcsClient
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=sys.argv[1])
    except AuthenticationError:
        print("refused")
    except Exception as error:
        print(str(error).strip() or type(error).__name__)
    else:
        print("accepted")


if __name__ == "__main__":
    main()
