"""The tables ``[folders."NAME"]``: which names are valid, and which table applies to a file of the inbox."""

from __future__ import annotations

from collections.abc import Mapping

from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import FolderTable
from fluxdrop.errors import FluxdropError
from fluxdrop.files.folder_key import folder_key

_NO_TABLE = FolderTable()


def check_folders(folders: Mapping[str, FolderTable], where: str) -> None:
    """Check the names of *folders*, which *where* sets, and each table's values against each other.

    Raises:
        FluxdropError: Kind ``config``, when a name is not the path of a folder below inbox/, two names
            mean the same folder, or a table contradicts itself.
    """
    seen: dict[str, str] = {}
    for name, table in folders.items():
        problem, hint = _name_problem(name)
        if not problem and (other := seen.get(folder_key(name))) is not None:
            problem = f"it is the same folder as {other!r}"
            hint = "Capitals make no difference here, as on Windows and macOS. Keep one of the two."
        if not problem:
            problem = table.problem()
        if problem:
            message = f"folders.{name!r} in {where} cannot be used: {problem}."
            raise FluxdropError(message, hint=hint, kind="config")
        seen[folder_key(name)] = name


def check_limits(settings: Settings) -> None:
    """Check the defaults of the folders against the limits for prompt files.

    Raises:
        FluxdropError: Kind ``config``, when one exceeds its limit.
    """
    for name, table in settings.folders.items():
        pixels = (table.width or 0) * (table.height or 0)
        for what, value, key in (
            ("steps", table.steps or 0, "max_steps"),
            ("width times height", pixels, "max_generated_pixels"),
        ):
            if value > (limit := getattr(settings, key)):
                raise FluxdropError(
                    f"folders.{name!r}: {what} is {value:,}, and {key} is {limit:,}.",
                    hint=f"Lower it, or raise {key}.",
                    kind="config",
                )


def folder_of(folders: Mapping[str, FolderTable], source: str) -> str | None:
    """Return the name of the most specific folder that *source*, a path below inbox/, lies in; None for none.

    Capitals and the form of accents make no difference: shares of Windows and macOS change both.
    """
    if not folders:
        return None
    names = {folder_key(name): name for name in folders}
    parent = source.rpartition("/")[0]
    while parent:
        if (name := names.get(folder_key(parent))) is not None:
            return name
        parent = parent.rpartition("/")[0]
    return None


def table_of(folders: Mapping[str, FolderTable], name: str | None) -> FolderTable:
    """Return the table *name* of *folders*; an empty one if there is none."""
    return folders.get(name, _NO_TABLE) if name is not None else _NO_TABLE


def _name_problem(name: str) -> tuple[str, str]:
    """Return why *name* is not that of a folder below inbox/, and the nearest name that is; empty if it is."""
    printable = "".join(letter for letter in name if letter.isprintable()).replace("\\", "/")
    parts = [part for part in printable.split("/") if part not in ("", ".", "..")]
    if parts[:1] == ["inbox"]:
        parts = parts[1:]
    nearest = "/".join(parts)
    if name == nearest and name:
        is_hidden = any(part.startswith(".") for part in parts)
        return ("a hidden folder of the inbox is not read" if is_hidden else ""), ""
    if ".." in name.split("/"):
        problem = "it leads out of inbox/"
    elif name.startswith("/"):
        problem = "it is an absolute path, and has to be one below inbox/"
    elif name.split("/")[0] == "inbox":
        problem = "it has to be the path below inbox/"
    elif name != printable:
        problem = "its parts are divided by /, and each character has to be printable"
    else:
        problem = "a part of its path is empty or a dot"
    return problem, f'Write [folders."{nearest or "xray"}"].'
