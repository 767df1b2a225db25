"""``fluxdrop service``: the systemd units."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fluxdrop.cli.arguments import Command
from fluxdrop.cli.options import JsonOption, print_json
from fluxdrop.systemd import install as installer
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
    destdir: DestinationOption = Path("/"),
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Write the unit files, and print the next steps.

    The files are adapted to this installation: its paths, account and environment.
    """
    units = _units(root, user, run_as, group, gpu)
    written = installer.install(units, destdir.absolute(), force=force)
    steps = units.next_steps()
    if json_output:
        print_json({"written": list(map(str, written)), "next": steps})
        return
    for path in written:
        typer.echo(f"Wrote {path}")
    typer.echo("Next:")
    for step in steps:
        typer.echo(f"    {step}")


@service_app.command("uninstall", cls=Command)
def uninstall(
    user: UserOption = False,
    destdir: DestinationOption = Path("/"),
    force: ForceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Remove the unit files that `install` wrote. The root, its account and its files stay.

    Stop the service first, with `systemctl disable --now fluxdrop`.
    """
    units = _units(None, user, "fluxdrop", "fluxdrop", gpu=True)
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
    json_output: JsonOption = False,
) -> None:
    """Print the files that `install` would write."""
    files = _units(root, user, run_as, group, gpu).files()
    if json_output:
        print_json({str(path): text for path, text in files.items()})
        return
    typer.echo("\n".join(f"# {path}\n{text}" for path, text in files.items()), nl=False)


def _units(root: Path | None, user: bool, run_as: str, group: str, gpu: bool) -> ServiceUnits:
    """Return the units that the options describe, with the default root if *root* is None."""
    named = os.environ.get("FLUXDROP_ROOT")
    default = Path.home() / "fluxdrop" if user else Path("/srv/fluxdrop")
    served = (root or (Path(named) if named else default)).absolute()
    return ServiceUnits(served, user_manager=user, account=run_as, group=group, gpu=gpu)
