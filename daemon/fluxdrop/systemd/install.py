"""Unit files put in their place and taken away, without losing what somebody changed by hand."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.systemd.units import Station

_MARK = "# Written by `fluxdrop service install`. SHA-256 of the rest: "


def install(station: Station, destination: Path, *, force: bool = False) -> list[Path]:
    """Write *station*'s files below *destination*; their paths.

    Raises FluxdropError, and writes nothing, where a file is not as an earlier install wrote it
    (*force* overwrites it), or systemd-analyze finds fault with one.
    """
    files = _below(destination, station)
    if not force:
        _refuse_changed(files)
    _verify(station)
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write(path, f"{_MARK}{_digest(text)}\n{text}".encode())
    except OSError as error:
        raise _no_rights(error) from error
    return list(files)


def uninstall(station: Station, destination: Path, *, force: bool = False) -> list[Path]:
    """Remove what `install` wrote below *destination*; the paths removed.

    Raises FluxdropError, and removes nothing, where a file was changed by hand, unless *force*.
    """
    files = [path for path in _below(destination, station) if path.exists()]
    if not force:
        _refuse_changed(files)
    try:
        for path in files:
            path.unlink()
            if path.parent.suffix == ".d" and path.parent.name.startswith("fluxdrop"):
                path.parent.rmdir()
    except OSError as error:
        raise _no_rights(error) from error
    return files


def _below(destination: Path, station: Station) -> dict[Path, str]:
    return {destination / path.relative_to("/"): text for path, text in station.files().items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_changed(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists() and not _is_ours(path):
            raise FluxdropError(
                f"{path} was not written by `fluxdrop service install`, or was changed since",
                hint="Keep changes of your own in a drop-in (systemctl edit fluxdrop), which stays;"
                " --force does without them.",
                kind="service",
            )


def _is_ours(path: Path) -> bool:
    mark, _, text = path.read_text(errors="replace").partition("\n")
    return mark == f"{_MARK}{_digest(text)}"


def _verify(station: Station) -> None:
    """Have systemd-analyze look at the units, where there is one. Raises FluxdropError."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    manager = ["--user"] if station.own else []
    with tempfile.TemporaryDirectory() as folder:
        units = []
        for path, text in station.files().items():
            if path.suffix == ".service":
                units.append(Path(folder, path.name))
                units[-1].write_text(text)
        seen = subprocess.run(
            [analyze, "verify", "--man=no", *manager, *map(str, units)],
            env={"XDG_RUNTIME_DIR": folder, **os.environ},
            capture_output=True,
            text=True,
            check=False,
        )
    faults = [line for line in seen.stderr.splitlines() if "fluxdrop" in line]
    if seen.returncode or faults:
        raise FluxdropError(
            f"systemd-analyze verify finds fault: {'; '.join(faults) or seen.stderr.strip()}",
            hint="`fluxdrop service show` prints the units.",
            kind="service",
        )


def _no_rights(error: OSError) -> FluxdropError:
    return FluxdropError(
        f"{error.filename} cannot be changed: {error.strerror}",
        hint="Run it with sudo, or with --user for a service of your own.",
        kind="service",
    )
