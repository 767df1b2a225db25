"""Adapt the shipped systemd units to one installation: its paths, account and environment."""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fluxdrop.provision.find import EXECUTABLE_VARIABLE, PROJECT_VARIABLE, data_dir, find_julia
from fluxdrop.resources import expanded, julia_folder, systemd_folder

ACCOUNT = "fluxdrop"
SERVICE = "fluxdrop.service"
TEMPLATE = "fluxdrop@.service"
GPU = "drop-ins/gpu.conf"
SYSUSERS = "sysusers.d/fluxdrop.conf"
_TMPFILES = "tmpfiles.d/fluxdrop.conf"
_ROOT = "/srv/fluxdrop"
# The folders that ProtectHome= and PrivateTmp= hide.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - named, not used
# Lines that a user's manager lacks the rights for, or does not need.
_SYSTEM_ONLY = re.compile(
    r"#|After=|User=|Group=|UMask=|Environment=HOME=|(Read\w+|Bind)Paths=|Private|Protect|ProcSubset="
    r"|Device|IPAddress|Capability|Ambient|RemoveIPC=|KeyringMode="
)


@dataclass(frozen=True)
class ServiceUnits:
    """The units of a service for one root."""

    root: Path
    user_manager: bool = False
    """Whether they are for the user's own service manager, not the system's."""
    account: str = ACCOUNT
    """The account that the daemon runs under. The user's own manager ignores it, and *group* and *gpu*."""
    group: str = ACCOUNT
    """The group that shares the root."""
    gpu: bool = False
    """Whether the drop-in that allows access to GPUs is included."""

    def files(self) -> dict[Path, str]:
        """Return the text of each file by its absolute path, as if installed below ``/``."""
        if self.user_manager:
            config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
            # By the XDG specification relative paths are ignored.
            config = config if config.is_absolute() else Path.home() / ".config"
            return {config / "systemd/user" / SERVICE: self._unit_text(SERVICE)}
        units = Path("/etc/systemd/system")
        files = {units / name: self._unit_text(name) for name in (SERVICE, TEMPLATE)}
        if self.gpu:
            files |= {
                units / f"{name}.d/gpu.conf": shipped_text(GPU) for name in (SERVICE, TEMPLATE)
            }
        if self.account == self.group == ACCOUNT:
            tmpfiles = shipped_text(_TMPFILES).replace(_ROOT, quoted(str(self.root)))
            files |= {
                Path("/etc") / SYSUSERS: shipped_text(SYSUSERS),
                Path("/etc") / _TMPFILES: tmpfiles,
            }
        return files

    def next_steps(self) -> list[str]:
        """Return the shell commands that start the service after the units are installed."""
        init = f"{_command()} init {shlex.quote(str(self.root))}"
        if self.user_manager:
            return [
                init,
                "systemctl --user daemon-reload",
                "systemctl --user enable --now fluxdrop",
                "loginctl enable-linger",
            ]
        steps = ["systemctl daemon-reload", "systemctl enable --now fluxdrop"]
        if self.account == self.group == ACCOUNT:
            return ["systemd-sysusers", "systemd-tmpfiles --create fluxdrop.conf", *steps]
        return [f"{init} --user {self.account} --group {self.group}", *steps]

    def _unit_text(self, name: str) -> str:
        """Return the text of the shipped unit *name*, adapted to this service."""
        text = with_line(shipped_text(name), "ExecStart", f"ExecStart={_command()} run")
        text = text.replace(
            f"Environment=FLUXDROP_ROOT={_ROOT}",
            f"Environment={quoted(f'FLUXDROP_ROOT={self.root}')}",
        )
        text = text.replace(_ROOT, quoted(str(self.root)))
        return self.adapted(text)

    def adapted(self, text: str) -> str:
        """Return the unit *text* with this service's account and environment, and what its sandbox must show."""
        environment = "\n".join(f"Environment={quoted(entry)}" for entry in _environment())
        text = with_line(text, "User", f"User={self.account}")
        text = with_line(text, "Group", f"Group={self.group}")
        text = with_line(text, "Environment=FLUXDROP_DATA_DIR", environment)
        return (
            _for_user_manager(text) if self.user_manager else _with_hidden_folders(text, self.root)
        )


def shipped_text(name: str) -> str:
    """Return the text of the file *name* among those that are shipped."""
    return (systemd_folder() / name).read_text()


def with_line(text: str, key: str, line: str) -> str:
    """Replace the line of *text* that sets *key* by *line*."""
    return re.sub(rf"^{re.escape(key)}=.*", lambda _: line, text, flags=re.MULTILINE)


def writable_path(path: Path) -> str:
    """Return the line that lets a service write to *path* where that exists."""
    return f"{'BindPaths' if _is_hidden(path) else 'ReadWritePaths'}=-{_bind_path(path)}"


def _command() -> str:
    """Return the command that starts this fluxdrop, as words of a unit file."""
    script = Path(sysconfig.get_path("scripts"), "fluxdrop")
    if os.access(script, os.X_OK):
        return quoted(str(script))
    return f"{quoted(sys.executable)} -m fluxdrop"


def _environment() -> list[str]:
    """Return the variables, as NAME=value, with which the daemon finds the same Julia as this process."""
    named = [(name, os.environ.get(name)) for name in (EXECUTABLE_VARIABLE, PROJECT_VARIABLE)]
    return [
        f"FLUXDROP_DATA_DIR={data_dir()}",
        *(f"{name}={expanded(value).absolute()}" for name, value in named if value),
    ]


def _for_user_manager(text: str) -> str:
    """Remove what only the system's manager supports from the unit *text*."""
    lines = [line for line in text.splitlines() if not _SYSTEM_ONLY.match(line)]
    return (
        re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        .lstrip()
        .replace("multi-user.target", "default.target")
        + "\n"
    )


def _with_hidden_folders(text: str, root: Path) -> str:
    """Add binds of the folders that the daemon needs and its sandbox would hide to the unit *text*."""
    if _is_hidden(root):
        text = text.replace(f"ReadWritePaths={quoted(str(root))}", f"BindPaths={_bind_path(root)}")
    folders = _outermost(path for path in _needed_folders() if _is_hidden(path))
    if not folders and not _is_hidden(root):
        return text
    binds = "".join(f"BindReadOnlyPaths={_bind_path(path)}\n" for path in folders)
    return text.replace("ProtectHome=yes\n", f"ProtectHome=tmpfs\n{binds}")


def _needed_folders() -> list[Path]:
    """Return the folders that the daemon reads and that exist: Python, the package, Julia and its packages."""
    install = find_julia()
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1], julia_folder()]
    if install is not None:
        folders.append(install.executable.resolve().parents[1])
    if install is not None and install.project is not None:
        folders.append(install.project)
    return [folder for folder in (*folders, data_dir()) if folder.exists()]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Return those of *paths* that are not below another one, sorted."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _HIDDEN)


def _bind_path(path: Path) -> str:
    """Return *path* as a word for a bind, with its colons escaped: a colon separates source and destination."""
    return quoted(str(path).replace(":", "\\:"))


def quoted(text: str) -> str:
    """Quote *text* as one word of a unit file (systemd.syntax(7)), with specifiers escaped."""
    text = text.replace("%", "%%")
    if not re.search(r"[\s\"'\\$;]", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
