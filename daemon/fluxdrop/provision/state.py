"""The record of the Julia that ``fluxdrop setup`` provided, which the daemon reads at its start."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.files import durable
from fluxdrop.provision.install import JuliaInstall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATE_VERSION = 1


def state_file(data: Path) -> Path:
    """Return the path of the record."""
    return data / "julia.json"


def read_install(data: Path) -> JuliaInstall | None:
    """Return the recorded install; None if there is none or it is no longer on the disk.

    A damaged record counts as none, as it can be made again.
    """
    try:
        state = json.loads(state_file(data).read_bytes())
        if state["state_version"] != STATE_VERSION:
            return None
        install = JuliaInstall(
            executable=Path(state["executable"]),
            project=Path(state["project"]) if state["project"] else None,
            env={str(name): str(value) for name, value in state["env"].items()},
            version=str(state["version"]),
            source=str(state["source"]),
            flux=str(state["flux"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return install if install.exists() else None


def write_install(data: Path, install: JuliaInstall) -> None:
    """Record *install* atomically: a reader sees the old record or the new one."""
    state = {"state_version": STATE_VERSION, **install_as_dict(install)}
    durable.write(state_file(data), json.dumps(state, indent=2).encode())


def forget_install(data: Path) -> None:
    """Remove the record, but nothing else in *data*."""
    state_file(data).unlink(missing_ok=True)


def install_as_dict(install: JuliaInstall) -> dict[str, object]:
    """Return *install* for JSON."""
    return {
        "executable": str(install.executable),
        "project": str(install.project) if install.project else None,
        "env": install.env,
        "version": install.version,
        "source": install.source,
        "flux": install.flux,
    }


@contextmanager
def setup_lock(data: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that lets one setup at a time work in *data*.

    Call *on_wait* if another process holds it, then wait until it is free.
    """
    import fcntl

    data.mkdir(parents=True, exist_ok=True)
    with (data / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
