"""Fetch the Debian archive's Julia into a private prefix, without root.

Where Julia's servers cannot be reached, a Debian mirror often can, as the machine was installed from it.
Debian 11 (bullseye) is the last release with Julia, 1.5.3. Its libraries are fetched too, except the C
library, so this works on bullseye and anything newer. apt checks the archive's signature and the
packages' hashes as in a normal installation. Its lists, cache and status are in folders of our own, so
that the system's package state does not change.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fluxdrop.errors import FluxdropError
from fluxdrop.provision.check import check_julia
from fluxdrop.provision.install import JuliaInstall
from fluxdrop.provision.script import complaint

if TYPE_CHECKING:
    from fluxdrop.provision.progress import SetupProgress

SUITE = "bullseye"
ARCHIVE = "http://deb.debian.org/debian"
OLD_RELEASES = "http://archive.debian.org/debian"
"""Where Debian moves a release after the end of its support."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS = ("apt-get", "dpkg-deb")
_MIN_FREE_BYTES = 600_000_000
_UNUSED = ("doc", "man", "locale", "lintian", "bash-completion")

# Packages that the running system must have itself (the C library has to match its loader), and packages
# that only Debian's package scripts need, which are not run.
_NOT_FETCHED = {
    "libc6",
    "libcrypt1",
    "gcc-10-base",
    "dpkg",
    "tar",
    "perl-base",
    "debconf",
    "cdebconf",
}

# The system's update hooks are cleared because they would act on the system: one in Docker images empties
# /var/cache/apt, another starts PackageKit.
_APT_CONF = """\
#clear APT::Update;
#clear DPkg;
Dir::State "{work}";
Dir::State::lists "{work}/lists";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Etc::sourcelist "{work}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
"""

_WRAPPER = """\
#!/bin/sh
prefix=$(CDPATH= cd -- "${{0%/*}}/.." && pwd) || exit
usr=$prefix/usr/lib/{triplet}
export LD_LIBRARY_PATH="$usr:$usr/julia:$prefix/lib/{triplet}"
exec "$prefix/usr/bin/julia" "$@"
"""


def why_not() -> str | None:
    """Return why this system cannot fetch from Debian; None if it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return (
        f"there is no {missing[0]} here, so this is not Debian or a derivative of it"
        if missing
        else None
    )


def provide_debian(data: Path, progress: SetupProgress) -> JuliaInstall:
    """Fetch Debian's Julia into the folder *data* and check that it runs.

    A prefix of an earlier setup that runs is kept, since Debian's Julia does not change.

    Raises:
        FluxdropError: This is not Debian, a step failed, or there is not enough space.
    """
    if reason := why_not():
        raise FluxdropError(reason, kind="debian")
    home = data / "julia-debian"
    home.mkdir(parents=True, exist_ok=True)
    for leftover in home.glob(".staging-*"):
        shutil.rmtree(leftover)
    prefix = home / SUITE
    if prefix.is_dir():
        progress.step("Running the Julia of Debian that is already here")
        try:
            return _install(prefix, _version(prefix))
        except FluxdropError:
            shutil.rmtree(prefix)
    if shutil.disk_usage(home).free < _MIN_FREE_BYTES:
        raise FluxdropError(f"{home} has less than {_MIN_FREE_BYTES // 10**6} MB free", kind="disk")
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=home))
    try:
        _fill(staging, progress)
        progress.step("Running Julia once")
        version = _version(staging / "prefix")
        # The rename marks the prefix as complete, so its files must be on the disk before.
        os.sync()
        (staging / "prefix").rename(prefix)
    finally:
        shutil.rmtree(staging)
    return _install(prefix, version)


def mirrors() -> list[str]:
    """Return the mirrors to try for bullseye: apt's configured ones, or Debian's, then the archive."""
    configured = _configured_mirrors() or [ARCHIVE]
    return [*dict.fromkeys([*configured, OLD_RELEASES])]


def _configured_mirrors() -> list[str]:
    described = _run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ],
        20,
    )
    rows = [line.split("|", 2) for line in described.splitlines() if line.count("|") >= 2]
    found = [uri for origin, label, uri in rows if (origin, label) == ("Debian", "Debian")]
    if not found:
        # Before the first `apt-get update`, as in a new container, apt knows only the addresses.
        with tempfile.TemporaryDirectory() as lists:
            addresses = _run(
                ["apt-get", "-o", f"Dir::State::lists={lists}", "update", "--print-uris"], 20
            )
        found = re.findall(r"^'(\S+/debian/)dists/[^/']+/InRelease'", addresses, re.MULTILINE)
    return [uri.rstrip("/") for uri in dict.fromkeys(found) if not uri.startswith("cdrom:")]


def _fill(staging: Path, progress: SetupProgress) -> None:
    """Create a complete prefix in the folder ``prefix`` of *staging*."""
    work, debs, prefix = staging / "apt", staging / "debs", staging / "prefix"
    for folder in (
        work / "lists" / "partial",
        work / "cache" / "archives" / "partial",
        debs,
        prefix / "bin",
    ):
        folder.mkdir(parents=True)
    (work / "status").touch()
    conf = work / "apt.conf"
    conf.write_text(_APT_CONF.format(work=work))
    apt = ["apt-get", "-q", "-c", str(conf)]

    _choose_mirror(work, apt, progress)
    packages = [
        package
        for package in re.findall(
            r"^Inst (\S+)", _run([*apt, "-s", "install", "julia"], 60), re.MULTILINE
        )
        if package not in _NOT_FETCHED
    ]
    progress.step(f"Downloading Julia and its libraries ({len(packages)} packages, about 70 MB)")
    _run([*apt, "download", *packages], 1800, cwd=debs)
    progress.step("Unpacking")
    for deb in sorted(debs.iterdir()):
        progress.detail(deb.name)
        _run(["dpkg-deb", "-x", str(deb), str(prefix)], 300)
    for name in _UNUSED:
        shutil.rmtree(prefix / "usr" / "share" / name, ignore_errors=True)

    library = next((prefix / "usr" / "lib").glob("*/libjulia.so*"), None)
    if library is None:
        raise FluxdropError("Debian's packages hold no libjulia", kind="debian")
    wrapper = prefix / "bin" / "julia"
    wrapper.write_text(_WRAPPER.format(triplet=library.parent.name))
    wrapper.chmod(0o755)


def _choose_mirror(work: Path, apt: list[str], progress: SetupProgress) -> None:
    """Download the package lists of the first mirror that has bullseye into *work*.

    Raises:
        FluxdropError: None has it; kind ``unreachable``. The message is about the first mirror.
    """
    options = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    failures = []
    for mirror in mirrors():
        progress.step(f"Asking {_without_login(mirror)} for Debian's Julia")
        (work / "sources.list").write_text(f"deb {options}{mirror} {SUITE} main\n")
        try:
            _run([*apt, "update"], 300)
        except FluxdropError as problem:
            failures.append(f"the mirror {_without_login(mirror)}: {problem.message}")
        else:
            return
    raise FluxdropError(failures[0], kind="unreachable")


def _without_login(mirror: str) -> str:
    return re.sub(r"//[^/@]*@", "//", mirror)


def _install(prefix: Path, version: str) -> JuliaInstall:
    return JuliaInstall(
        prefix / "bin" / "julia",
        None,
        version=version,
        source=f"Debian {SUITE}",
    )


def _version(prefix: Path) -> str:
    """Run the Julia in *prefix* and return its version."""
    return check_julia(_install(prefix, ""), timeout=120).version


def _run(command: list[str], seconds: float, cwd: Path | None = None) -> str:
    """Run *command* and return its standard output. Raise FluxdropError if it fails or takes too long."""
    try:
        run = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise FluxdropError(
            f"{command[0]} was not done after {seconds:g} s", kind="timeout"
        ) from None
    if run.returncode != 0:
        raise FluxdropError(f"{command[0]} failed: {complaint(run.stderr)}", kind="debian")
    return run.stdout
