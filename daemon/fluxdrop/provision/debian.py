"""Fetch the Debian archive's Julia into a private prefix, without root.

Where Julia's servers cannot be reached, a Debian mirror often can: the machine was installed
from it. Julia 1.5.3 was last part of Debian 11 (bullseye); its libraries come along, the C
library does not, so this works on bullseye and everything newer. apt checks the archive's
signature and every package's hash as for a normal install; its lists, cache and idea of what is
installed are folders of our own, so that the system's package state stays as it is.
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
"""Where Debian's mirrors send a release when its support has ended."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS = ("apt-get", "dpkg-deb")
_SPACE = 600_000_000
_UNUSED = ("doc", "man", "locale", "lintian", "bash-completion")

# What the running system must bring itself (the C library has to match its loader), and what
# only Debian's package scripts need, which are not run.
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

# Update hooks are cleared because the system's would act on the system: Docker images empty
# /var/cache/apt in one, PackageKit is woken by another.
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
    """Why this system cannot fetch from Debian, or ``None`` where it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"there is no {missing[0]} here, so this is not Debian or its kin" if missing else None


def provide_debian(data: Path, progress: SetupProgress) -> JuliaInstall:
    """Fetch Debian's Julia into ``data`` and see it run.

    A prefix that an earlier setup left and that runs is kept: Debian's does not change.
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
    if shutil.disk_usage(home).free < _SPACE:
        raise FluxdropError(f"{home} has less than {_SPACE // 10**6} MB free", kind="disk")
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=home))
    try:
        _fill(staging, progress)
        progress.step("Running Julia once")
        version = _version(staging / "prefix")
        # The rename is what says "whole"; after it no file may be lost to a power cut.
        os.sync()
        (staging / "prefix").rename(prefix)
    finally:
        shutil.rmtree(staging)
    return _install(prefix, version)


def mirrors() -> list[str]:
    """Where to look for bullseye: apt's configured Debian mirror, then Debian's own places."""
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
        # Before the first `apt-get update`, as in a fresh container, apt knows addresses only.
        with tempfile.TemporaryDirectory() as lists:
            addresses = _run(
                ["apt-get", "-o", f"Dir::State::lists={lists}", "update", "--print-uris"], 20
            )
        found = re.findall(r"^'(\S+/debian/)dists/[^/']+/InRelease'", addresses, re.MULTILINE)
    return [uri.rstrip("/") for uri in dict.fromkeys(found) if not uri.startswith("cdrom:")]


def _fill(staging: Path, progress: SetupProgress) -> None:
    """Put a whole prefix into ``staging``/prefix."""
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
    """Leave in ``work`` the lists of the first mirror that has bullseye."""
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
    """What Julia in ``prefix`` says of itself once it was seen to run."""
    return check_julia(_install(prefix, ""), timeout=120).version


def _run(command: list[str], seconds: float, cwd: Path | None = None) -> str:
    """The standard output of ``command``; a failure becomes a sentence."""
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
