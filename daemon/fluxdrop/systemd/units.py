"""What the shipped units become for one installation: its paths, its account, its environment."""

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
_SERVICE = "fluxdrop.service"
_TEMPLATE = "fluxdrop@.service"
_GPU = "drop-ins/gpu.conf"
_SYSUSERS = "sysusers.d/fluxdrop.conf"
_TMPFILES = "tmpfiles.d/fluxdrop.conf"
_ROOT = "/srv/fluxdrop"
# What ProtectHome= and PrivateTmp= hide.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - named, not used
# What a user's manager has not the rights for, or no use.
_OF_THE_SYSTEM = re.compile(
    r"#|After=|User=|Group=|UMask=|Environment=HOME=|(Read\w+|Bind)Paths=|Private|Protect|ProcSubset="
    r"|Device|IPAddress|Capability|Ambient|RemoveIPC=|KeyringMode="
)


@dataclass(frozen=True)
class Station:
    """What the units are fitted to; *own* is the user's own manager, and not the system's."""

    root: Path
    own: bool = False
    account: str = ACCOUNT
    group: str = ACCOUNT
    gpu: bool = False

    def files(self) -> dict[Path, str]:
        """The text of each file, by its path."""
        if self.own:
            config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
            # The XDG specification has relative paths ignored.
            config = config if config.is_absolute() else Path.home() / ".config"
            return {config / "systemd/user" / _SERVICE: self._fitted(_SERVICE)}
        units = Path("/etc/systemd/system")
        files = {units / name: self._fitted(name) for name in (_SERVICE, _TEMPLATE)}
        if self.gpu:
            files |= {
                units / f"{name}.d/gpu.conf": _shipped(_GPU) for name in (_SERVICE, _TEMPLATE)
            }
        if self.account == self.group == ACCOUNT:
            tmpfiles = _shipped(_TMPFILES).replace(_ROOT, _word(str(self.root)))
            files |= {
                Path("/etc") / _SYSUSERS: _shipped(_SYSUSERS),
                Path("/etc") / _TMPFILES: tmpfiles,
            }
        return files

    def next_steps(self) -> list[str]:
        """The commands that make the installed units run."""
        init = f"{_command()} init {shlex.quote(str(self.root))}"
        if self.own:
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

    def _fitted(self, name: str) -> str:
        environment = "\n".join(f"Environment={_word(entry)}" for entry in _environment())
        text = _shipped(name)
        text = _with(text, "ExecStart", f"ExecStart={_command()} run")
        text = _with(text, "User", f"User={self.account}")
        text = _with(text, "Group", f"Group={self.group}")
        text = _with(text, "Environment=FLUXDROP_DATA_DIR", environment)
        text = text.replace(
            f"Environment=FLUXDROP_ROOT={_ROOT}",
            f"Environment={_word(f'FLUXDROP_ROOT={self.root}')}",
        )
        text = text.replace(_ROOT, _word(str(self.root)))
        return _for_a_user(text) if self.own else _with_hidden_places(text, self.root)


def _shipped(name: str) -> str:
    return (systemd_folder() / name).read_text()


def _with(text: str, key: str, line: str) -> str:
    """*text* with *line* in the place of the line that sets *key*."""
    return re.sub(rf"^{re.escape(key)}=.*", lambda _: line, text, flags=re.MULTILINE)


def _command() -> str:
    script = Path(sysconfig.get_path("scripts"), "fluxdrop")
    if os.access(script, os.X_OK):
        return _word(str(script))
    return f"{_word(sys.executable)} -m fluxdrop"


def _environment() -> list[str]:
    """The variables of this environment that the daemon needs, as it would find the same Julia."""
    named = [(name, os.environ.get(name)) for name in (EXECUTABLE_VARIABLE, PROJECT_VARIABLE)]
    return [
        f"FLUXDROP_DATA_DIR={data_dir()}",
        *(f"{name}={expanded(value).absolute()}" for name, value in named if value),
    ]


def _for_a_user(text: str) -> str:
    lines = [line for line in text.splitlines() if not _OF_THE_SYSTEM.match(line)]
    return (
        re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        .lstrip()
        .replace("multi-user.target", "default.target")
        + "\n"
    )


def _with_hidden_places(text: str, root: Path) -> str:
    """*text* with those of the places that the daemon needs bound which its sandbox would hide."""
    if _is_hidden(root):
        text = text.replace(f"ReadWritePaths={_word(str(root))}", f"BindPaths={_bound(root)}")
    places = _outermost(path for path in _places() if _is_hidden(path))
    if not places and not _is_hidden(root):
        return text
    binds = "".join(f"BindReadOnlyPaths={_bound(path)}\n" for path in places)
    return text.replace("ProtectHome=yes\n", f"ProtectHome=tmpfs\n{binds}")


def _places() -> list[Path]:
    """What the daemon reads: Python, the package, Julia and what it loads."""
    install = find_julia()
    places = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1], julia_folder()]
    if install is not None:
        places.append(install.executable.resolve().parents[1])
    if install is not None and install.project is not None:
        places.append(install.project)
    return [place for place in (*places, data_dir()) if place.exists()]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in _HIDDEN)


def _bound(path: Path) -> str:
    """*path* as a word in which a colon does not part a source from its destination."""
    return _word(str(path).replace(":", "\\:"))


def _word(text: str) -> str:
    """*text* as one word of a unit file (systemd.syntax(7)), with no specifiers in it."""
    text = text.replace("%", "%%")
    if not re.search(r"[\s\"'\\$;]", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
