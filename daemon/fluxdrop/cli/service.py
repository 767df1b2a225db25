"""``fluxdrop service``: the systemd units."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.arguments import Command
from fluxdrop.cli.options import JsonOption, print_json
from fluxdrop.cluster.starting import TOKEN
from fluxdrop.errors import FluxdropError
from fluxdrop.systemd import install as installer
from fluxdrop.systemd.cluster_units import ClusterUnits, make_token
from fluxdrop.systemd.units import ServiceUnits

service_app = typer.Typer(
    help="Manage the daemon as a systemd service.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

ServedOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
        help="Serve this root. Default: $FLUXDROP_ROOT, else /srv/fluxdrop, or ~/fluxdrop with --user.",
    ),
]
UserOption = Annotated[
    bool, typer.Option("--user", help="Use your own service manager instead of the system's.")
]
RunAsOption = Annotated[
    str, typer.Option("--run-as", metavar="ACCOUNT", help="Run the daemon under this account.")
]
GroupOption = Annotated[
    str,
    typer.Option(
        "--group",
        metavar="GROUP",
        help="Let the members of this group drop files and read results.",
    ),
]
GpuOption = Annotated[bool, typer.Option("--gpu", help="Allow access to GPUs, by a drop-in.")]
DestinationOption = Annotated[
    Path,
    typer.Option(
        "--destdir", metavar="FOLDER", help="Use this folder in place of /, to make a package."
    ),
]
HeadOption = Annotated[
    bool,
    typer.Option(
        "--cluster-head",
        help="Also run the head of a cluster here, whose hosts make the pictures of the root.",
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--cluster-host",
        metavar="STATION",
        help="Instead, make this machine a host of the cluster with this station, a name or an address.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Overwrite or remove even files that were changed by hand.")
]


@service_app.command("install", cls=Command)
def install(
    root: ServedOption = None,
    user: UserOption = False,
    run_as: RunAsOption = "fluxdrop",
    group: GroupOption = "fluxdrop",
    gpu: GpuOption = False,
    cluster_head: HeadOption = False,
    cluster_host: HostOption = None,
    destdir: DestinationOption = Path("/"),
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Write the unit files, and print the next steps.

    The files are adapted to this installation: its paths, account and environment.
    """
    units = _units(root, user, run_as, group, gpu, head=cluster_head, station=cluster_host)
    written = installer.install(units, destdir.absolute(), force=force)
    if cluster_head and make_token(destdir.absolute()):
        written.append(destdir.absolute() / TOKEN.relative_to("/"))
    steps = units.next_steps()
    if json_output:
        print_json({"written": list(map(str, written)), "next": steps})
        return
    for path in written:
        typer.echo(f"Wrote {path}")
    typer.echo("Next:")
    for step in steps:
        typer.echo(f"    {step}")
    if cluster_head:
        typer.echo(
            f"Whoever has {TOKEN} can run programs on all machines of the cluster. Carry it to each host over a"
            " connection that nobody reads, and tell it to nobody else; docs/cluster.md has the ports."
        )


@service_app.command("uninstall", cls=Command)
def uninstall(
    user: UserOption = False,
    destdir: DestinationOption = Path("/"),
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Remove the unit files that `install` wrote. The root, its account, its files and a cluster's token stay.

    Stop the service first, with `systemctl disable --now fluxdrop`, and fluxdrop-cluster where there is one.
    """
    units = _units(None, user, "fluxdrop", "fluxdrop", gpu=True, head=not user)
    removed = installer.uninstall(units, destdir.absolute(), force=force)
    if json_output:
        print_json({"removed": list(map(str, removed))})
        return
    for path in removed:
        typer.echo(f"Removed {path}")


@service_app.command("show", cls=Command)
def show(
    root: ServedOption = None,
    user: UserOption = False,
    run_as: RunAsOption = "fluxdrop",
    group: GroupOption = "fluxdrop",
    gpu: GpuOption = False,
    cluster_head: HeadOption = False,
    cluster_host: HostOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print the files that `install` would write."""
    units = _units(root, user, run_as, group, gpu, head=cluster_head, station=cluster_host)
    files = units.files()
    if json_output:
        print_json({str(path): text for path, text in files.items()})
        return
    typer.echo("\n".join(f"# {path}\n{text}" for path, text in files.items()), nl=False)


def _units(
    root: Path | None,
    user: bool,
    run_as: str,
    group: str,
    gpu: bool,
    head: bool = False,
    station: str | None = None,
) -> ServiceUnits | ClusterUnits:
    """Return the units that the options describe, with the default root if *root* is None.

    Raises:
        FluxdropError: The options contradict each other.
    """
    if station is not None and (head or root is not None):
        other = "--cluster-head" if head else "--root"
        raise FluxdropError(
            f"--cluster-host and {other} exclude each other",
            hint="A host serves no root: the station does, where --cluster-head belongs.",
            kind="service",
        )
    if user and (head or station is not None):
        raise FluxdropError(
            "A cluster's units are for the system's service manager, and --user is for your own",
            hint="Leave --user out.",
            kind="service",
        )
    named = os.environ.get("FLUXDROP_ROOT")
    default = Path.home() / "fluxdrop" if user else Path("/srv/fluxdrop")
    served = (root or (Path(named) if named else default)).absolute()
    service = ServiceUnits(served, user_manager=user, account=run_as, group=group, gpu=gpu)
    return ClusterUnits(service, station) if head or station is not None else service
