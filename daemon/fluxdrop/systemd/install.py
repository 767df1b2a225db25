"""Install and remove the unit files, without losing changes that somebody made by hand."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.systemd.cluster_units import ClusterUnits
from fluxdrop.systemd.units import ServiceUnits

_HEADER = "# Written by `fluxdrop service install`. SHA-256 of the rest: "


def install(
    units: ServiceUnits | ClusterUnits, destination: Path, *, force: bool = False
) -> list[Path]:
    """Write the unit files below a folder.

    Args:
        units: The units.
        destination: The folder; ``/`` except when a package is made.
        force: Whether to overwrite files that are not as an earlier install wrote them.

    Returns:
        The paths written.

    Raises:
        FluxdropError: Without *force*, a file is not as an earlier install wrote it; or systemd-analyze
            reports a fault in a unit; nothing is written then. Or a file cannot be written.
    """
    files = _below(destination, units)
    if not force:
        _refuse_changed(files)
    _verify(units)
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write(path, f"{_HEADER}{_digest(text)}\n{text}".encode())
    except OSError as error:
        raise _access_error(error) from error
    return list(files)


def uninstall(
    units: ServiceUnits | ClusterUnits, destination: Path, *, force: bool = False
) -> list[Path]:
    """Remove the files that `install` wrote.

    Args:
        units: The units; files that do not exist are skipped.
        destination: The folder that they were installed below.
        force: Whether to remove files that were changed by hand, too.

    Returns:
        The paths removed.

    Raises:
        FluxdropError: Without *force*, a file was changed by hand; nothing is removed then. Or a file
            cannot be removed.
    """
    files = [path for path in _below(destination, units) if path.exists()]
    if not force:
        _refuse_changed(files)
    try:
        for path in files:
            path.unlink()
            folder = path.parent
            if folder.suffix == ".d" and folder.name.startswith("fluxdrop"):
                # Others may have put drop-ins there.
                with suppress(OSError):
                    folder.rmdir()
    except OSError as error:
        raise _access_error(error) from error
    return files


def _below(destination: Path, units: ServiceUnits | ClusterUnits) -> dict[Path, str]:
    return {destination / path.relative_to("/"): text for path, text in units.files().items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_changed(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists() and not _is_unchanged(path):
            raise FluxdropError(
                f"{path} was not written by `fluxdrop service install`, or was changed since",
                hint="Keep changes of your own in a drop-in (systemctl edit fluxdrop), which stays;"
                " --force discards them.",
                kind="service",
            )


def _is_unchanged(path: Path) -> bool:
    """Return whether *path* is as `install` wrote it, by the digest in its first line."""
    header, _, text = path.read_text(errors="replace").partition("\n")
    return header == f"{_HEADER}{_digest(text)}"


def _verify(units: ServiceUnits | ClusterUnits) -> None:
    """Check the units with systemd-analyze, if it is installed.

    Raises:
        FluxdropError: It reports a fault.
    """
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return
    manager = ["--user"] if units.user_manager else []
    with tempfile.TemporaryDirectory() as folder:
        services = []
        for path, text in units.files().items():
            if path.suffix == ".service":
                services.append(Path(folder, path.name))
                services[-1].write_text(text)
        seen = subprocess.run(
            [analyze, "verify", "--man=no", *manager, *map(str, services)],
            env={"XDG_RUNTIME_DIR": folder, **os.environ},
            capture_output=True,
            text=True,
            check=False,
        )
    faults = [line for line in seen.stderr.splitlines() if "fluxdrop" in line]
    if seen.returncode or faults:
        raise FluxdropError(
            f"systemd-analyze verify reports: {'; '.join(faults) or seen.stderr.strip()}",
            hint="`fluxdrop service show` prints the units.",
            kind="service",
        )


def _access_error(error: OSError) -> FluxdropError:
    return FluxdropError(
        f"{error.filename} cannot be changed: {error.strerror}",
        hint="Run it with sudo, or with --user for a service of your own.",
        kind="service",
    )
