"""``fluxdrop run``: the daemon."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from fluxdrop import config, ownership
from fluxdrop.cli.options import EngineOption, LogLevelOption, RootOption
from fluxdrop.cli.refusal import defect
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import find_root
from fluxdrop.logs import configure, get_logger
from fluxdrop.service.daemon import Daemon
from fluxdrop.service.reporting.notify import Notifier


def run(
    root: RootOption = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Process the inbox, then exit; exit code 0 only if nothing failed."
        ),
    ] = False,
    engine: EngineOption = None,
    log_level: LogLevelOption = None,
    shared_root: Annotated[
        bool,
        typer.Option(
            "--shared-root",
            help="Serve even a root that other users may write, its settings included.",
        ),
    ] = False,
) -> None:
    """Serve a root: turn the files in its inbox/ into results.

    Runs until it is stopped, by Ctrl-C or SIGTERM. SIGHUP makes it read its settings again.
    """
    served = find_root(root)

    flags = {"engine": engine, "log_level": log_level, "shared_root": shared_root or None}

    def load() -> config.Settings:
        return ownership.load_trusted(served, flags)

    ownership.narrow_umask()
    settings = load()
    configure(settings.log_level, served.logs)

    daemon = Daemon(served, settings, once=once, load=load, notifier=Notifier.from_environment())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: daemon.stop())
    signal.signal(signal.SIGHUP, lambda _number, _frame: daemon.reload())
    try:
        daemon.run()
    except FluxdropError:
        raise
    except Exception as error:
        get_logger("fluxdrop.daemon").exception("the daemon ended because of a defect")
        if isinstance(error, OSError):
            raise
        log = served.logs / "fluxdrop.log"
        raise defect(error, f"Report it and attach {log}.") from error
    if once and (daemon.failed or daemon.skipped):
        raise typer.Exit(1)
