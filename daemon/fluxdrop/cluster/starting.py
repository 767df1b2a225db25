"""How Ray is started at a head and at a host: one place for its arguments and its environment.

``python -m fluxdrop.cluster.starting`` runs ``ray start`` and watches it; the units call it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fluxdrop.errors import FluxdropError

FOLDER = Path("/run/fluxdrop-cluster")
"""Where Ray's sockets and logs are."""
TOKEN = Path("/etc/fluxdrop/cluster.token")
FIRST_PORT = 25600
"""Below the ports that Linux gives to outgoing connections, which begin at 32768."""
LAST_PORT = FIRST_PORT + 99
OBJECT_STORE_BYTES = 512 << 20
VARIABLES = {
    field: f"FLUXDROP_CLUSTER_{field.upper()}"
    for field in ("address", "token", "tls", "gpus", "object_store_bytes", "folder")
}
"""The environment's variables for the fields of a `Member`."""
_MIN_TOKEN_BYTES = 32
_RIGHTS_HINT = (
    "`systemd-tmpfiles --create fluxdrop-cluster.conf` gives it to the account of the service."
)
_MAIN = {"raylet", "gcs_server"}
"""The names of Ray's processes without which a machine is no part of the cluster."""
_WATCH_SECONDS = 0.5
_END_SECONDS = 10.0
_STARTED = "started"
"""A file in Ray's folder, of the time of its last start."""
_LATELY_SECONDS = 120.0
_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 60.0
_SEEN_SECONDS = 5.0
_CERTIFICATES = {
    "RAY_TLS_CA_CERT": "ca.crt",
    "RAY_TLS_SERVER_CERT": "host.crt",
    "RAY_TLS_SERVER_KEY": "host.key",
}


class Port(NamedTuple):
    """One of the fixed ports: its number, Ray's option for it, what it is, and who connects to it."""

    number: int
    option: str
    purpose: str
    opened_to: str


PORTS = (
    Port(FIRST_PORT, "--port", "the head: who belongs to the cluster", "hosts to the station"),
    Port(FIRST_PORT + 1, "--node-manager-port", "starting and ending workers", "all to all"),
    Port(FIRST_PORT + 2, "--object-manager-port", "pictures and pipelines", "all to all"),
    Port(FIRST_PORT + 3, "--runtime-env-agent-port", "Ray's agent", "nobody"),
    Port(FIRST_PORT + 4, "--dashboard-agent-listen-port", "Ray's agent", "nobody"),
    Port(FIRST_PORT + 5, "--dashboard-agent-grpc-port", "Ray's agent", "nobody"),
    Port(FIRST_PORT + 6, "--metrics-export-port", "Ray's agent", "nobody"),
    Port(FIRST_PORT + 10, "--min-worker-port", "the first of the workers", "all to all"),
    Port(LAST_PORT, "--max-worker-port", "the last of the workers", "all to all"),
)


@dataclass(frozen=True)
class Member:
    """A machine of a cluster."""

    station: str | None = None
    """The station's name or address; None where this is the station, which runs the head."""
    address: str | None = None
    """This machine's own address in the cluster's network. None: that of its way to the others."""
    token: Path = TOKEN
    tls: Path | None = None
    """The folder of ca.crt, host.crt and host.key; None without TLS."""
    gpus: int | None = None
    """None: as many as Ray finds."""
    object_store_bytes: int = OBJECT_STORE_BYTES
    folder: Path = FOLDER
    """Where Ray's sockets and logs are. Its path has to be short."""

    def command(self) -> list[str]:
        """Return the command that runs Ray here until it is ended.

        Raises:
            FluxdropError: The station's name has no address.
        """
        ports = [port for port in PORTS if self.station is None or port.option != "--port"]
        # The workers need no CPUs, as no call asks for one; so Ray keeps none in reserve.
        words = [
            *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block"),
            *(f"{port.option}={port.number}" for port in ports),
            f"--node-name={socket.gethostname()}",
            f"--temp-dir={self.folder}",
            f"--object-store-memory={self.object_store_bytes}",
            "--num-cpus=0",
            "--include-log-monitor=False",
        ]
        if self.station is None:
            words += ["--head", "--include-dashboard=False", "--no-monitor"]
        else:
            words.append(f"--address={resolved(self.station)}:{FIRST_PORT}")
        if self.address is not None:
            words.append(f"--node-ip-address={self.address}")
        if self.gpus is not None:
            words.append(f"--num-gpus={self.gpus}")
        return words

    def environment(self) -> dict[str, str]:
        """Return Ray's variables for its own processes; `connecting` has those of all others."""
        return {
            **connecting(self.token, self.tls),
            # A host that does not answer is lost after about 12 s; by Ray's defaults, after 65 s.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "3",
            # Ray would end a worker when the machine's memory is nearly full, whoever fills it.
            "RAY_memory_monitor_refresh_ms": "0",
            # The logs are in memory where the folder is below /run.
            "RAY_ROTATION_MAX_BYTES": str(4 << 20),
            "RAY_ROTATION_BACKUP_COUNT": "1",
        }


def connecting(token: Path, tls: Path | None) -> dict[str, str]:
    """Return the environment of a process that connects to a cluster.

    Args:
        token: The file of the token.
        tls: The folder of the certificates; None without TLS.
    """
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if tls is not None:
        variables["RAY_USE_TLS"] = "1"
        variables |= {name: str(tls / file) for name, file in _CERTIFICATES.items()}
    return variables


def resolved(name: str) -> str:
    """Return the IPv4 address of *name*. Ray's own resolver does not read /etc/hosts everywhere.

    Raises:
        FluxdropError: It has none.
    """
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise FluxdropError(
            f"{name} has no address: {error.strerror}",
            hint="Name the station as this machine knows it, or give its address.",
            kind="cluster",
        ) from error


def check(member: Member) -> None:
    """Check what Ray itself would start without, or would not name.

    Raises:
        FluxdropError: The token or a certificate is missing, cannot be read, or can be read by anybody.
    """
    token = _secret(member.token, _token_hint(member))
    if len(token.strip()) < _MIN_TOKEN_BYTES:
        raise FluxdropError(
            f"{member.token} holds no token: it has fewer than {_MIN_TOKEN_BYTES} bytes",
            hint=_token_hint(member),
            kind="cluster",
        )
    if member.tls is not None:
        hint = "docs/cluster.md tells how the certificates are made."
        for file in _CERTIFICATES.values():
            path = member.tls / file
            if path.suffix == ".key":
                _secret(path, hint)
            else:
                _content(path, hint)


def _token_hint(member: Member) -> str:
    if member.station is None:
        return "`fluxdrop service install --cluster-head` makes the token."
    return f"Copy the file from the station, {member.station}, where it has the same path."


def _secret(path: Path, hint: str) -> bytes:
    content = _content(path, hint)
    if path.stat().st_mode & 0o007:
        raise FluxdropError(
            f"{path} can be read or written by anybody", hint=f"chmod o= {path}", kind="cluster"
        )
    return content


def _content(path: Path, hint: str) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise FluxdropError(
            f"{path} cannot be read by this account", hint=_RIGHTS_HINT, kind="cluster"
        ) from error
    except OSError as error:
        raise FluxdropError(
            f"{path} cannot be read: {error.strerror}", hint=hint, kind="cluster"
        ) from error


def _check_accepted(member: Member, head: str) -> None:
    """Check, where Ray ended soon after its last start, whether the head accepts the token. Ray itself says it badly.

    Raises:
        FluxdropError: It does not.
    """
    host, _, port = head.rpartition(":")
    try:
        connection = socket.create_connection((host, int(port)), _CONNECT_SECONDS)
    except OSError:
        # Ray waits for the head.
        return
    with connection, suppress(subprocess.TimeoutExpired):
        asked = subprocess.run(
            [sys.executable, "-P", "-m", "fluxdrop.cluster.token_probe", head],
            env={**os.environ, **connecting(member.token, member.tls)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
        if asked.stdout.strip() == "refused":
            # The station's daemon looks who is connected, to tell who was refused.
            time.sleep(_SEEN_SECONDS)
            raise FluxdropError(
                f"The head at {head} does not accept the token in {member.token}",
                hint=_token_hint(member),
                kind="cluster",
            )


def _was_touched_lately(mark: Path) -> bool:
    try:
        return time.time() - mark.stat().st_mtime < _LATELY_SECONDS
    except OSError:
        return False


def clean(folder: Path) -> None:
    """Remove from *folder* what earlier starts left, of which nothing runs any more."""
    for path in folder.glob("session_*"):
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def member_of(arguments: list[str], environment: Mapping[str, str]) -> Member:
    """Return what the command line and FLUXDROP_CLUSTER_ variables say of this machine."""
    parser = argparse.ArgumentParser(prog="fluxdrop.cluster.starting", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", action="store_true")
    which.add_argument("--station", metavar="NAME")
    given = parser.parse_args(arguments)
    named = {key: environment.get(name) or None for key, name in VARIABLES.items()}
    return Member(
        station=given.station,
        address=named["address"],
        token=Path(named["token"] or TOKEN),
        tls=Path(named["tls"]) if named["tls"] else None,
        gpus=int(named["gpus"]) if named["gpus"] else None,
        object_store_bytes=int(named["object_store_bytes"] or OBJECT_STORE_BYTES),
        folder=Path(named["folder"] or FOLDER),
    )


def main() -> None:
    """Run ``ray start`` to its end, or end with a message."""
    member = member_of(sys.argv[1:], os.environ)
    try:
        check(member)
        command = member.command()
        mark = member.folder / _STARTED
        if member.station is not None and _was_touched_lately(mark):
            _check_accepted(member, f"{resolved(member.station)}:{FIRST_PORT}")
    except FluxdropError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
    clean(member.folder)
    # There is no folder where Ray was never started; it makes one.
    with suppress(OSError):
        mark.touch()
    # The unit's environment may say otherwise, such as longer health checks, but not of the token.
    environment = {**member.environment(), **os.environ, **connecting(member.token, member.tls)}
    sys.exit(_run(command, environment))


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run Ray until it ends, or one of its `_MAIN` processes does; return its exit code, or 1.

    When an agent of Ray is lost, its raylet ends with the code 0, which ``ray start`` takes for no reason to end.
    """
    ray = subprocess.Popen(command, env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: ray.send_signal(number))
    seen: set[str] = set()
    while ray.poll() is None:
        time.sleep(_WATCH_SECONDS)
        running = _children(ray.pid)
        if lost := seen - running:
            print(f"error: Ray goes on without its {' and '.join(sorted(lost))}", file=sys.stderr)
            ray.terminate()
            with suppress(subprocess.TimeoutExpired):
                ray.wait(_END_SECONDS)
            ray.kill()
            return 1
        seen |= running & _MAIN
    return ray.wait()


def _children(pid: int) -> set[str]:
    """Return the names of the processes that *pid* started and that run."""
    names = set()
    for line in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in line.read_text().split():
            with suppress(OSError):
                names.add(Path(f"/proc/{child}/comm").read_text().strip())
    return names


if __name__ == "__main__":
    main()
