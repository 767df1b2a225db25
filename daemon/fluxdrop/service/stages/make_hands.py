"""Which hands make a root's pictures."""

from __future__ import annotations

from collections.abc import Callable

from fluxdrop.config import Settings
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.hands import Hands
from fluxdrop.generate.local_hands import LocalHands


def make_hands(settings: Settings, wait_hook: Callable[[], None]) -> Hands:
    """Return the hands that *settings* ask for; no process is started yet.

    *wait_hook* is called several times a second while a picture is awaited; what it raises ends the wait.
    """
    if settings.cluster:
        # Without a cluster, none of its modules is loaded.
        from fluxdrop.cluster.cluster_hands import ClusterHands

        return ClusterHands(settings, wait_hook)
    return LocalHands(Generator(settings, wait_hook))
