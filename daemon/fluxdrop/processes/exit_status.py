"""How a process ended, in words."""

from __future__ import annotations

import signal


def exit_status(code: int) -> str:
    """Return how a process ended whose exit *code* is as `subprocess.Popen.returncode`: negative for a signal."""
    return f"exited with code {code}" if code >= 0 else f"was ended by {_signal_name(-code)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Most real-time signals have no name.
        return f"signal {number}"
