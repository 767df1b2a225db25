"""Find the job that a person means: by its id or a prefix of it, by its result's NAME, or by a path."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import FAILED, Root
from fluxdrop.jobs.store import Row, Store
from fluxdrop.picture_formats import PICTURE_SUFFIXES

_SUFFIXES = (".error.json", ".json", ".npy", ".txt", *sorted(PICTURE_SUFFIXES))


def find_job(root: Root, store: Store, job: str) -> Row:
    """Return the one job that *job* means.

    Args:
        root: The root.
        store: Its index.
        job: A job's id, a prefix of it, its result's NAME, its input's path below inbox/, or the path
            of one of its files, absolute or relative to the root or the working folder.

    Raises:
        FluxdropError: There is no such job, or more than one; kind ``no-job``.
    """
    name = _name_of_path(root, job)
    found = store.find(job) or (store.find(name) if name else [])
    if len(found) == 1:
        return found[0]
    if not found:
        raise FluxdropError(
            f"There is no job {job}", hint="`fluxdrop jobs` lists the last ones.", kind="no-job"
        )
    several = ", ".join(row.id for row in found)
    raise FluxdropError(f"{job} can mean several jobs: {several}", kind="no-job")


def is_glob(text: str) -> bool:
    """Return whether *text* contains a wildcard."""
    return any(letter in text for letter in "*?[")


def _name_of_path(root: Root, text: str) -> str | None:
    """Return the NAME of the job whose file has the path *text*; None if it is not such a path."""
    given = Path(text)
    if given.is_absolute() or given.exists():
        try:
            given = given.resolve().relative_to(root.path.resolve())
        except ValueError:
            return None
    parts = PurePosixPath(given).parts
    folders = (root.outputs.name, root.generated.name, root.preprocessed.name)
    if len(parts) < 2 or parts[0] not in folders:
        return None
    if parts[1] == FAILED and parts[0] == root.outputs.name:
        return str(PurePosixPath(*parts[2:])).removesuffix(".error.json")
    name = str(PurePosixPath(*parts[1:]))
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]
