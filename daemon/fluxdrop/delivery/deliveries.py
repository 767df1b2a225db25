"""All outlets of a daemon: which there are by the settings, and what each job that ends owes to them."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from fluxdrop.config import Settings
from fluxdrop.delivery.command import Command
from fluxdrop.delivery.hook import Hook
from fluxdrop.delivery.receiver import Receiver
from fluxdrop.delivery.results_csv import OUTLET, ResultsCsv, lines_of
from fluxdrop.delivery.webhook import Webhook, parse_secret
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_given
from fluxdrop.jobs.outbox import Balance, Debt, Outbox
from fluxdrop.jobs.store import Store
from fluxdrop.logs import get_logger
from fluxdrop.records.result import Failure, Record

log = get_logger("fluxdrop.hooks")

SECRET_VARIABLE = "FLUXDROP_HOOK_SECRET"  # noqa: S105 - a variable's name
ON_DONE, ON_FAILED = "on_done", "on_failed"
_MAX_SECRET_BYTES = 4096


class Deliveries:
    """The outlets that *settings* ask for. `owe` is called by the publisher's thread, the rest by the main loop's."""

    def __init__(self, root: Root, settings: Settings, store: Store) -> None:
        """Prepare the outlets; `start` starts their threads.

        Args:
            root: The root that the daemon serves.
            settings: The settings.
            store: The index, open as long as this is.

        Raises:
            FluxdropError: The secret cannot be read or is none; kind ``config``.
            OSError: The index cannot be written.
        """
        receivers = dict(_receivers(root, settings))
        names = dict.fromkeys(receivers, 0) | ({OUTLET: 1} if settings.results_csv else {})
        self._outbox = Outbox(store, names, time.time())
        if self._outbox.dropped:
            log.warning("dropped what was owed to removed hooks", records=self._outbox.dropped)
        self.hooks = [Hook(name, receiver, self._outbox) for name, receiver in receivers.items()]
        self._tables = [ResultsCsv(root, store, self._outbox)] if settings.results_csv else []
        self._names = set(names)

    @property
    def _outlets(self) -> list[Hook | ResultsCsv]:
        return [*self.hooks, *self._tables]

    def start(self) -> None:
        """Start the threads."""
        for outlet in self._outlets:
            outlet.start()

    def owe(self, ended: Iterable[tuple[Record, str]]) -> Callable[[sqlite3.Connection], None]:
        """Return a function that enters, in the transaction that ends the jobs, what they owe.

        Args:
            ended: The jobs' records, with the paths of their JSON files below the root.
        """
        debts = list(self._debts(ended)) if self._names else []
        return lambda db: self._outbox.add(db, debts, time.time()) if debts else None

    def _debts(self, ended: Iterable[tuple[Record, str]]) -> Iterator[Debt]:
        for record, path in ended:
            hook = ON_FAILED if isinstance(record, Failure) else ON_DONE
            if hook in self._names:
                yield Debt(hook, record.job_id, msgspec.json.encode(record))
            if OUTLET in self._names and (lines := lines_of(record, path)):
                yield Debt(OUTLET, record.job_id, lines)

    def wake(self) -> None:
        """Make the outlets see what is new; return at once."""
        for outlet in self._outlets:
            outlet.wake()

    def balances(self) -> dict[str, Balance]:
        """Return how it stands with each outlet."""
        return self._outbox.balances() if self._names else {}

    @property
    def taken(self) -> dict[str, int]:
        """How many records each outlet has taken since the start."""
        return {outlet.name: outlet.taken for outlet in self._outlets}

    @property
    def errors(self) -> list[str]:
        """Why outlets are behind, one sentence each."""
        return [f"{outlet.name}: {outlet.problem}" for outlet in self._outlets if outlet.problem]

    def close(self, drain_seconds: float = 0.0) -> None:
        """Stop the threads; what is owed stays owed.

        Args:
            drain_seconds: How long to wait for hooks that work to take what is due.
        """
        for outlet in self._outlets:
            outlet.close(drain_seconds)


def _receivers(root: Root, settings: Settings) -> Iterator[tuple[str, Receiver]]:
    """Yield the hooks of *settings*, by name. Raises what `Deliveries` does."""
    hooks = settings.hooks
    for name, value in ((ON_DONE, hooks.on_done), (ON_FAILED, hooks.on_failed)):
        if isinstance(value, list):
            yield name, Command(name, value, root.path, hooks.timeout_seconds)
        elif value:
            key = _key(root, hooks.secret_file)
            if key is None:
                log.warning("hook is not signed", hook=name, hint="Set secret_file in [hooks].")
            yield name, Webhook(value, key, hooks.timeout_seconds)


def _key(root: Root, secret_file: str) -> bytes | None:
    """Return the key that signs what URLs get: of the environment, else of *secret_file*; None if there is none."""
    if text := os.environ.get(SECRET_VARIABLE):
        return parse_secret(text, SECRET_VARIABLE)
    if not secret_file:
        return None
    path = root.path / Path(secret_file).expanduser()
    try:
        with open_given(path) as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
                log.warning("others can read the secret of the hooks", path=str(path))
            text = file.read(_MAX_SECRET_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise FluxdropError(
            f"{path}, the secret_file of [hooks], cannot be read: {error.strerror}", kind="config"
        ) from error
    return parse_secret(text, str(path))
