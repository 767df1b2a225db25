"""The events that wait for the intake."""

from __future__ import annotations

import queue

from fluxdrop.intake.ready import Hint


class EventQueue:
    """Events of files and folders, up to a limit. Any thread may put events; one thread takes them."""

    def __init__(self, max_events: int) -> None:
        """Make an empty queue for *max_events*."""
        self._max_events = max_events
        self._events: queue.SimpleQueue[tuple[str, Hint | None] | None] = queue.SimpleQueue()

    def put(self, path: str, hint: Hint | None) -> bool:
        """Add an event of *path*; a hint of None stands for a folder. Return False if the queue is full."""
        if self._events.qsize() >= self._max_events:
            return False
        self._events.put((path, hint))
        return True

    def wake(self) -> None:
        """Make a `take` that waits return."""
        self._events.put(None)

    def take(self, timeout: float) -> tuple[list[tuple[str, Hint]], list[str]]:
        """Wait at most *timeout* seconds for an event, and take what is there then.

        Returns:
            The events of files, and the folders of which there were events. Each folder is named once:
            whoever renames a large one again and again must not have it read as often.
        """
        files: list[tuple[str, Hint]] = []
        folders: dict[str, None] = {}
        try:
            event = self._events.get(timeout=timeout)
            # New events may arrive as fast as these are taken.
            for _ in range(self._max_events):
                if event is not None:
                    path, hint = event
                    if hint is None:
                        folders[path] = None
                    else:
                        files.append((path, hint))
                event = self._events.get_nowait()
        except queue.Empty:
            pass
        return files, list(folders)
