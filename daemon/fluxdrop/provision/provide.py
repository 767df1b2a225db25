"""Provide the best engine possible on this machine, and report what was tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.attempt import is_unfinished, undo_unfinished
from fluxdrop.provision.find import (
    EXECUTABLE_VARIABLE,
    PROJECT_VARIABLE,
    data_dir,
    find_julia,
    julia_on_path,
    overridden,
)
from fluxdrop.provision.install import JuliaInstall
from fluxdrop.provision.progress import SetupProgress, Silent
from fluxdrop.provision.state import (
    forget_install,
    install_as_dict,
    read_install,
    setup_lock,
    write_install,
)

if TYPE_CHECKING:
    from pathlib import Path

EngineName = Literal["julia with Flux", "julia with plain layers", "onnxruntime"]
Outcome = Literal["used", "skipped", "failed"]

_FLUX_LATER = (
    "Run `fluxdrop setup --force` where https://pkg.julialang.org and "
    "https://julialang-s3.julialang.org (or the JULIA_PKG_SERVER that you name) can be reached."
)
_OWN_FLUX = (
    f"Name a Julia of 1.10 or newer in {EXECUTABLE_VARIABLE} and a project with Flux 0.16 in "
    f"{PROJECT_VARIABLE}, or unset both and run `fluxdrop setup`."
)
_OWN_JULIA = (
    f"Or name a Julia of your own in {EXECUTABLE_VARIABLE}, and a project with Flux in "
    f"{PROJECT_VARIABLE}."
)


@dataclass(frozen=True)
class Step:
    """One way to get a Julia, whether it worked, and why in one sentence."""

    name: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class SetupReport:
    """The engine that will be used, why, and how to get a better one."""

    engine: EngineName
    install: JuliaInstall | None
    steps: tuple[Step, ...] = ()
    remedies: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the report for JSON."""
        return {
            "engine": self.engine,
            "julia": install_as_dict(self.install) if self.install else None,
            "steps": [
                {"name": step.name, "outcome": step.outcome, "reason": step.reason}
                for step in self.steps
            ],
            "remedies": list(self.remedies),
        }


def provision(
    progress: SetupProgress | None = None, *, force: bool = False, data: Path | None = None
) -> SetupReport:
    """Provide the best Julia possible for workers.

    What ``FLUXDROP_JULIA`` or ``FLUXDROP_JULIA_PROJECT`` names is checked and used as it is. It is not an
    error if there is no Julia: the report names the engine that is used instead.

    Args:
        progress: Told each step; by default nothing is shown.
        force: Try again for something better than what an earlier call recorded.
        data: The data folder; `data_dir` by default.

    Raises:
        FluxdropError: An override in the environment cannot be used.
    """
    progress = progress or Silent()
    data = data or data_dir()
    if not overridden():
        return _recorded_or_provided(data, progress, force)
    if (named := find_julia(data)) is not None:
        return _verified_override(named, progress)
    # Only a project was named, and there is no Julia yet to use with it.
    report = _recorded_or_provided(data, progress, force)
    if (named := find_julia(data)) is None:
        return report
    verified = _verified_override(named, progress)
    return replace(verified, steps=report.steps + verified.steps)


def _recorded_or_provided(data: Path, progress: SetupProgress, force: bool) -> SetupReport:
    from fluxdrop.provision.juliapkg_setup import juliapkg_depot, juliapkg_project

    project = juliapkg_project(data)
    recorded = read_install(data)
    if not force and recorded is not None and not is_unfinished(project):
        return _kept(recorded)
    with setup_lock(data, lambda: progress.step("Waiting for another setup to end")):
        undo_unfinished(project, juliapkg_depot(data))
        recorded = read_install(data)
        if not force and recorded is not None:
            # Another process provided it while this one waited for the lock.
            return _kept(recorded)
        return _provide(data, progress, recorded, force)


def _provide(
    data: Path, progress: SetupProgress, recorded: JuliaInstall | None, force: bool
) -> SetupReport:
    from fluxdrop.provision.debian import provide_debian
    from fluxdrop.provision.juliapkg_setup import provide_flux

    steps: list[Step] = []
    try:
        install = provide_flux(data, progress, force=force)
    except FluxdropError as problem:
        steps.append(_failed("juliapkg", problem))
    else:
        write_install(data, install)
        return _report(install, Step("juliapkg", "used", f"It provided {_described(install)}."))

    if recorded is not None and recorded.flux:
        return _kept(recorded, *steps)

    try:
        on_path = julia_on_path()
        if on_path is None:
            steps.append(Step("PATH", "skipped", "There is no julia on PATH."))
        else:
            on_path, no_flux = _verified(on_path, progress)
            # A recorded install would take precedence over PATH.
            forget_install(data)
            reason = f"{_described(on_path)} is on PATH{no_flux}."
            return _report(on_path, *steps, Step("PATH", "used", reason))
    except FluxdropError as problem:
        steps.append(_failed("PATH", problem))

    try:
        install = provide_debian(data, progress)
    except FluxdropError as problem:
        steps.append(_failed("Debian's archive", problem))
        return _report(None, *steps)
    write_install(data, install)
    return _report(
        install, *steps, Step("Debian's archive", "used", f"It provided {_described(install)}.")
    )


def _kept(recorded: JuliaInstall, *steps: Step) -> SetupReport:
    reason = f"{_described(recorded)} is here."
    return _report(recorded, *steps, Step("earlier setup", "used", reason))


def _verified_override(named: JuliaInstall, progress: SetupProgress) -> SetupReport:
    install, no_flux = _verified(named, progress)
    reason = f"It names {_described(install)}{no_flux}."
    report = _report(install, Step("environment", "used", reason))
    # While the environment decides, another setup would change nothing.
    return replace(report, remedies=() if install.flux else (_OWN_FLUX,))


def _verified(install: JuliaInstall, progress: SetupProgress) -> tuple[JuliaInstall, str]:
    """Run *install*; return it with its versions, and the end of a sentence that says why Flux is missing."""
    from fluxdrop.provision.check import check_julia

    progress.step(f"Running {install.executable}")
    checked = check_julia(install)
    no_flux = f"; {checked.flux_error}" if checked.flux_error else ""
    return replace(install, version=checked.version, flux=checked.flux), no_flux


def _report(install: JuliaInstall | None, *steps: Step) -> SetupReport:
    if install is None:
        return SetupReport("onnxruntime", None, steps, (_FLUX_LATER, _OWN_JULIA))
    if install.flux:
        return SetupReport("julia with Flux", install, steps)
    return SetupReport("julia with plain layers", install, steps, (_FLUX_LATER, _OWN_JULIA))


def _described(install: JuliaInstall) -> str:
    flux = f" with Flux {install.flux}" if install.flux else ""
    return f"Julia {install.version}{flux} ({install.executable})"


def _failed(name: str, problem: FluxdropError) -> Step:
    reason = problem.message[:1].upper() + problem.message[1:]
    return Step(name, "failed", reason if reason.endswith(".") else reason + ".")
