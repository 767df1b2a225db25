"""The units of a machine of a cluster: the station with the head, or a host."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from fluxdrop.cluster.starting import TOKEN
from fluxdrop.errors import FluxdropError
from fluxdrop.provision.find import data_dir
from fluxdrop.systemd import units
from fluxdrop.systemd.units import ServiceUnits

_SERVICE = "fluxdrop-cluster.service"
_TMPFILES = "tmpfiles.d/fluxdrop-cluster.conf"
_CLUSTER = "drop-ins/cluster.conf"
_UNITS = Path("/etc/systemd/system")
_DATA = "/var/lib/fluxdrop"


@dataclass(frozen=True)
class ClusterUnits:
    """The units of a machine of a cluster."""

    service: ServiceUnits
    """The daemon's units, which only the station gets; both run under its account."""
    station: str | None = None
    """The station's name or address; None where this is the station."""
    user_manager = False

    def files(self) -> dict[Path, str]:
        """Return the text of each file by its absolute path, as if installed below ``/``."""
        files = {_UNITS / _SERVICE: self._unit_text(), Path("/etc") / _TMPFILES: self._tmpfiles()}
        if self.service.gpu:
            files[_UNITS / f"{_SERVICE}.d/gpu.conf"] = units.shipped_text(units.GPU)
        if self.station is None:
            drop_in = units.shipped_text(_CLUSTER)
            for name in (units.SERVICE, units.TEMPLATE):
                files[_UNITS / f"{name}.d/cluster.conf"] = drop_in
            files |= self.service.files()
        elif self._own_account:
            files[Path("/etc") / units.SYSUSERS] = units.shipped_text(units.SYSUSERS)
        return files

    def next_steps(self) -> list[str]:
        """Return the shell commands that start the cluster's part here after the units are installed."""
        steps = ["systemd-sysusers"] if self._own_account else []
        enable = ["systemctl daemon-reload", "systemctl enable --now fluxdrop-cluster"]
        if self.station is not None:
            copy = f"scp root@{shlex.quote(self.station)}:{TOKEN} {TOKEN}"
            return [*steps, *self._tmpfiles_steps(copy), *enable]
        root = self.service.root
        setting = f"echo 'cluster = \"auto\"' >> {shlex.quote(str(root / 'fluxdrop.toml'))}"
        daemon = [step for step in self.service.next_steps() if step not in (*steps, enable[0])]
        daemon.insert(-1, setting)
        return [*steps, *self._tmpfiles_steps(), *enable, *daemon]

    @property
    def _own_account(self) -> bool:
        return self.service.account == self.service.group == units.ACCOUNT

    def _tmpfiles_steps(self, copy: str | None = None) -> list[str]:
        """The steps that give the token its rights, and before that *copy* it."""
        create = "systemd-tmpfiles --create fluxdrop-cluster.conf"
        # The first time for the folder, the second for the token in it.
        return [create, copy, create] if copy else [create]

    def _tmpfiles(self) -> str:
        text = units.shipped_text(_TMPFILES).replace(_DATA, units.quoted(str(data_dir())))
        account, group = self.service.account, self.service.group
        return text.replace(f":{units.ACCOUNT} :{units.ACCOUNT}", f":{account} :{group}").replace(
            f" {units.ACCOUNT} root", f" {account} root"
        )

    def _unit_text(self) -> str:
        role = ["--head"] if self.station is None else ["--station", self.station]
        words = [sys.executable, "-P", "-m", "fluxdrop.cluster.starting", *role]
        command = " ".join(map(units.quoted, words))
        text = units.with_line(units.shipped_text(_SERVICE), "ExecStart", f"ExecStart={command}")
        cache = data_dir() / "cluster-cache"
        return self.service.adapted(text).replace(
            f"ReadWritePaths=-{_DATA}/cluster-cache", units.writable_path(cache)
        )


def make_token(destination: Path) -> bool:
    """Make the cluster's token below the folder *destination*, readable by its owner; return whether there was none.

    Raises:
        FluxdropError: It cannot be written.
    """
    path = destination / TOKEN.relative_to("/")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    except OSError as error:
        raise FluxdropError(
            f"{path} cannot be written: {error.strerror}", hint="Run it with sudo.", kind="service"
        ) from error
    return True
