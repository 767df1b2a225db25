"""What ``fluxdrop setup`` provided: a small file that the daemon's start reads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.files import durable
from fluxdrop.provision.install import JuliaInstall

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_VERSION = 1


def state_file(data: Path) -> Path:
    """The file that holds the recorded install."""
    return data / "julia.json"


def read_install(data: Path) -> JuliaInstall | None:
    """The recorded install, or ``None`` where there is none or it is no longer on disk.

    The file is a cache of a search: a damaged one is as good as none.
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
    """Record ``install``; a reader sees the old record or the new one, never a part."""
    state = {"state_version": STATE_VERSION, **install_as_dict(install)}
    durable.write(state_file(data), json.dumps(state, indent=2).encode())


def forget_install(data: Path) -> None:
    """Record that nothing is provided; what lies in ``data`` stays there."""
    state_file(data).unlink(missing_ok=True)


def install_as_dict(install: JuliaInstall) -> dict[str, object]:
    """``install`` in JSON's types."""
    return {
        "executable": str(install.executable),
        "project": str(install.project) if install.project else None,
        "env": install.env,
        "version": install.version,
        "source": install.source,
        "flux": install.flux,
    }


@contextmanager
def setup_lock(data: Path) -> Iterator[None]:
    """Let one setup at a time work in ``data``; a second one waits for the first."""
    import fcntl

    data.mkdir(parents=True, exist_ok=True)
    with (data / "setup.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
