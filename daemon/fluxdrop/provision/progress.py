"""How provisioning tells a person what it is at."""

from __future__ import annotations

from typing import Protocol


class SetupProgress(Protocol):
    """What listens while Julia is provided."""

    def step(self, text: str) -> None:
        """A new step begins."""

    def detail(self, text: str) -> None:
        """A line of noise from inside the step, for people who watch."""


class Silent:
    """Progress that nobody watches."""

    def step(self, text: str) -> None:
        """Say nothing."""

    def detail(self, text: str) -> None:
        """Say nothing."""
