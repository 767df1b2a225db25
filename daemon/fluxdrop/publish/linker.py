"""Linking the files of one job to the names that its plan decided, and undoing that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fluxdrop import failpoints
from fluxdrop.jobs.claim import is_input
from fluxdrop.jobs.job import RECORD
from fluxdrop.publish import links
from fluxdrop.publish.places import Places, above
from fluxdrop.publish.plans import Plan, Plans

NAME_REFUSED = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
"""What a filesystem says of a name that it cannot have, whether or not it is taken."""


class Linker:
    """Carries out *plans* in the folders *places*; the caller closes those. One thread owns it.

    *on_progress* is called at least once for each MiB that is copied.
    """

    def __init__(self, places: Places, plans: Plans, on_progress: Callable[[], None]) -> None:
        self._places = places
        self._plans = plans
        self._on_progress = on_progress

    def link(self, folder: Path, plan: Plan, max_copied_bytes: int) -> set[str]:
        """Link the files of the job in *folder* to the names of *plan*.

        Args:
            folder: The job's folder.
            plan: Its plan.
            max_copied_bytes: The largest input that is copied.

        Returns:
            The folders that hold the names, and those above them, as paths below the root.

        Raises:
            NameTakenError: Another file has one of the names; the plan is void then.
            NotCopiedError: The input can neither be linked nor copied.
            OSError: The disk is full or not available.
        """
        pairs = _links(folder, plan)
        # A subfolder may be new; then its own name has to be synced, too.
        targets = [*(target for _, target in plan.links), plan.record]
        parents = {parent for target in targets for parent in above(target)}
        try:
            try:
                self._link_all(pairs, plan.has_failed, max_copied_bytes)
            except (FileNotFoundError, NotADirectoryError):
                self._places.make(parents)
                self._link_all(pairs, plan.has_failed, max_copied_bytes)
        except (links.NameTakenError, NotADirectoryError) as error:
            self.unlink(folder, plan)
            raise links.NameTakenError(str(error)) from error
        return parents

    def unlink(self, folder: Path, plan: Plan) -> None:
        """Remove the names that *plan* gave to files in *folder*, then make it void. Raises OSError."""
        for source, target, _ in _links(folder, plan):
            parent, _, name = target.rpartition("/")
            try:
                links.unlink_or_remove_copy(source, name, self._places.fd(parent))
            except PermissionError:
                # Whoever closed the folder meanwhile is responsible for what is in it.
                self._places.check_top_folders()
            except OSError as error:
                # With these errors the name cannot exist.
                if error.errno not in {*NAME_REFUSED, errno.ENOTDIR, errno.ENOENT}:
                    raise
        failpoints.reach("names-taken-back")
        self._plans.void(folder.name)
        failpoints.reach("plan-void")

    def _link_all(
        self, pairs: Sequence[tuple[str, str, bool]], has_failed: bool, max_copied_bytes: int
    ) -> None:
        """Link all *pairs*, which `_links` returned for a job that failed or not. Raises what `link` does."""
        to_move = []
        for source, target, of_input in pairs:
            parent, _, name = target.rpartition("/")
            folder = self._places.fd(parent)
            try:
                if not of_input:
                    links.link_or_copy(source, name, folder, self._on_progress)
                elif not has_failed:
                    links.link_or_copy(source, name, folder, self._on_progress, max_copied_bytes)
                elif not links.try_link_or_copy(
                    source, name, folder, self._on_progress, max_copied_bytes
                ):
                    to_move.append((source, name, parent))
                    continue
            except FileNotFoundError:
                # A source that is gone was moved before a kill.
                if os.path.lexists(source):
                    raise
            failpoints.reach("name-given")
        # Last, after the record too, because a move cannot be undone.
        for source, name, parent in to_move:
            links.move(source, name, self._places.fd(parent))


def _links(folder: Path, plan: Plan) -> list[tuple[str, str, bool]]:
    """Return the links of *plan*, the record last: source, path below the root, whether it is the input."""
    pairs = [*plan.links, (os.fsencode(RECORD), plan.record)]
    names = [(os.fsdecode(source), target) for source, target in pairs]
    return [(f"{folder}/{name}", target, is_input(name)) for name, target in names]
