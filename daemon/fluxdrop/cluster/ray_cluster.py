"""Ray, as far as the broker uses it. Only the broker and the check of tokens import this module."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluxdrop.cluster.starting import FOLDER, TOKEN, VARIABLES, connecting
from fluxdrop.errors import FluxdropError
from fluxdrop.printable import printable

_HEAD = "node:__internal_head__"
"""A resource that Ray gives to the head's node."""
_MAX_NAME = 64
"""Linux allows no longer hostname."""
_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 60.0
_MAX_REASON = 300


def _set_environment() -> None:
    """Have Ray use the token, and TLS, as the units do, unless the environment says otherwise; no usage statistics."""
    tls = os.environ.get(VARIABLES["tls"])
    token = Path(os.environ.get(VARIABLES["token"]) or TOKEN)
    variables = connecting(token, Path(tls) if tls else None)
    if not os.access(token, os.R_OK):
        # Then Ray looks for one in the home folder.
        del variables["RAY_AUTH_TOKEN_PATH"]
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0")


# Ray reads it when it is imported.
_set_environment()


class Node(NamedTuple):
    """A node of the Ray cluster."""

    id: str
    hostname: str
    address: str
    port: int
    """With the address, the same for no two nodes that live."""
    alive: bool
    gpus: int
    is_station: bool
    """Whether it has the head or this process."""

    @property
    def is_living_host(self) -> bool:
        """Whether it can be used. A station without a GPU has enough to do with everything else."""
        return self.alive and (bool(self.gpus) or not self.is_station)


def join(address: str) -> int:
    """Connect this process, as Ray's driver, to the cluster at *address*; return the port of its head.

    Raises:
        FluxdropError: Kind ``cluster``: it cannot be reached, or does not ask for a token.
    """
    import ray

    address = _resolved(address)
    _check_port(address)
    _check_token(address)
    # Ray puts the working folder before all others on the hosts' import path.
    os.chdir("/")
    try:
        ray.init(
            address=address,
            namespace="fluxdrop",
            log_to_driver=False,
            configure_logging=False,
            include_dashboard=False,
        )
    except Exception as error:
        raise _unreachable(address, error) from error
    return int(address.rpartition(":")[2])


def nodes() -> list[Node]:
    """Return all nodes that the cluster has or had. Waits while the head does not answer.

    Raises:
        FluxdropError: This machine's own node is dead. Without it nothing can be asked of others, and Ray tells nobody.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    entries = ray.nodes()
    if any(entry["NodeID"] == here and not entry["Alive"] for entry in entries):
        raise FluxdropError("Ray ended on this machine", kind="cluster")
    return [_node(entry, here) for entry in entries]


def free_gpus(node: str) -> float:
    """Return how many GPUs of *node* no actor or task has at this moment."""
    from ray._private.state import available_resources_per_node

    return float(available_resources_per_node().get(node, {}).get("GPU", 0.0))


def remote_task(function: Any, node: str, gpus: int = 0) -> Any:
    """Return *function* as a task on *node*, which takes *gpus* GPUs and no other resource; call ``remote`` on it."""
    import ray

    return ray.remote(function).options(
        num_cpus=0, num_gpus=gpus, max_retries=0, scheduling_strategy=_only_on(node)
    )


def remote_actor(actor_class: type, node: str, gpus: int) -> Any:
    """Return *actor_class* as an actor on *node*, which takes *gpus* GPUs; call ``remote`` on it.

    It ends with this process, is never restarted, and no call is repeated.
    """
    import ray

    return ray.remote(actor_class).options(
        num_cpus=0,
        num_gpus=gpus,
        max_restarts=0,
        max_task_retries=0,
        scheduling_strategy=_only_on(node),
    )


def kill(actor: Any) -> None:
    """End *actor* at once, if it can be reached. It is never used again."""
    import ray

    # Without an error if it is gone. If it cannot be reached, its lease ends it.
    with contextlib.suppress(Exception):
        ray.kill(actor, no_restart=True)


def leave() -> None:
    """Leave the cluster, which ends all actors."""
    import ray

    ray.shutdown()


def loss(error: Exception) -> str:
    """Return what a call to an actor that raised *error* lost, in a few words; the details follow a colon."""
    from ray.exceptions import ObjectLostError, RayActorError

    if isinstance(error, RayActorError):
        what = "its process was lost"
    elif isinstance(error, ObjectLostError):
        what = "the answer was lost on its way"
    elif isinstance(error, TimeoutError):
        what = "it did not answer"
    else:
        what = "Ray failed"
    return f"{what}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Return what is wrong in one line: Ray's messages have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _node(entry: Mapping[str, Any], here: str) -> Node:
    resources = entry["Resources"]
    return Node(
        id=entry["NodeID"],
        hostname=printable(entry["NodeManagerHostname"])[:_MAX_NAME],
        address=entry["NodeManagerAddress"],
        port=entry["NodeManagerPort"],
        alive=entry["Alive"],
        gpus=int(resources.get("GPU", 0)),
        is_station=entry["NodeID"] == here or _HEAD in resources,
    )


def _only_on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _resolved(address: str) -> str:
    """Return HOST:PORT of the head; for ``auto``, that of the cluster that this machine belongs to."""
    from ray._private.utils import read_ray_address

    if address != "auto":
        return address
    found = os.environ.get("RAY_ADDRESS") or read_ray_address(str(FOLDER)) or read_ray_address(None)
    if not found:
        raise FluxdropError(
            "This machine belongs to no Ray cluster",
            hint="Start it as a host or as the head: fluxdrop service install --cluster-head, or set cluster to"
            " HOST:PORT of the head.",
            kind="cluster",
        )
    return found


def _check_port(address: str) -> None:
    """Check that the head listens, which Ray would try for 40 s."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from error


def _check_token(address: str) -> None:
    """Check that this user has a token, and that the head refuses whoever has none.

    Raises:
        FluxdropError: Kind ``cluster``.
    """
    from ray._raylet import AuthenticationTokenLoader

    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise FluxdropError(
            "This user has no token of the Ray cluster",
            hint="Copy the head's token file to ~/.ray/auth_token, readable by this user only, or name it in"
            " RAY_AUTH_TOKEN_PATH.",
            kind="cluster",
        )
    without = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    # Ray keeps the token for as long as a process lives, so it takes another one to come without.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fluxdrop.cluster.token_probe", address],
        env=without | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=_PROBE_SECONDS,
        check=False,
    )
    if done.stdout.strip() == "refused":
        return
    if done.stdout.strip() == "accepted":
        raise FluxdropError(
            f"The Ray cluster at {address} takes everybody: it was started without token authentication, so whoever"
            " reaches it can run code on all its hosts. It is not used",
            hint="Start its head and its hosts with RAY_AUTH_MODE=token: fluxdrop service install --cluster-head.",
            kind="cluster",
        )
    raise _unreachable(address, done.stdout.strip() or done.stderr.strip())


def _unreachable(address: str, error: object) -> FluxdropError:
    # Of two versions that do not go together, the lines after the first one tell which they are.
    reason = " ".join(str(error).split())[:_MAX_REASON]
    return FluxdropError(
        f"The Ray cluster at {address} cannot be reached: {reason or 'no reason is known'}",
        kind="cluster",
    )
