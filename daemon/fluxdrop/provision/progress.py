"""Progress of ``fluxdrop setup``, for people who wait."""

from __future__ import annotations

from typing import Protocol


class SetupProgress(Protocol):
    """Receives the progress while Julia is provided."""

    def step(self, text: str) -> None:
        """Show that the step *text* begins."""

    def detail(self, text: str) -> None:
        """Show *text*, a line of output from within the step."""


class Silent:
    """Progress that is not shown."""

    def step(self, text: str) -> None:
        """Do nothing."""

    def detail(self, text: str) -> None:
        """Do nothing."""
