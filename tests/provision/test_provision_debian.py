"""Julia from Debian's archive: the real one where it can be reached."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.provision import debian, julia_command
from fluxdrop.provision.progress import Silent
from fluxdrop.provision.state import read_install
from support.provisioning import SYSTEM_PATH, stand_in

pytestmark = [pytest.mark.usefixtures("nothing_set"), pytest.mark.slow]


def test_debian_julia_runs(debian_data: Path) -> None:
    """Julia from Debian's archive computes 1+1 from a private prefix, in an empty environment."""
    install = read_install(debian_data)
    assert install is not None
    command, _ = julia_command(install)

    run = subprocess.run(
        [*command, "-e", "print(1+1, ' ', VERSION)"],
        env=install.env,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "2 1.5.3" == run.stdout


def test_leftovers_are_not_taken(debian_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix that a killed setup left half unpacked is never found, and is cleared away."""
    monkeypatch.setenv("PATH", SYSTEM_PATH)
    half = debian_copy / "julia-debian" / ".staging-killed"
    stand_in(half / "prefix" / "bin")

    install = debian.provide_debian(debian_copy, Silent())

    assert debian_copy / "julia-debian" / "bullseye" / "bin" / "julia" == install.executable
    assert not half.exists()


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be Debian; whatever would call its tools is replaced by the test."""
    monkeypatch.setattr(debian, "why_not", lambda: None)


@pytest.mark.usefixtures("tools")
def test_broken_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix whose Julia does not run is not put in place, and nothing of it is left."""

    def fill(staging: Path, progress: object) -> None:
        stand_in(staging / "prefix" / "bin").write_text("#!/bin/sh\necho ERROR: no BLAS >&2\n")

    monkeypatch.setattr(debian, "_fill", fill)

    with pytest.raises(FluxdropError, match="ERROR: no BLAS"):
        debian.provide_debian(tmp_path, Silent())

    assert [] == list((tmp_path / "julia-debian").iterdir())


@pytest.mark.usefixtures("tools")
def test_damaged_prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A prefix in place that no longer runs is fetched anew."""
    stand_in(tmp_path / "julia-debian" / "bullseye" / "bin").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(
        debian, "_fill", lambda staging, progress: stand_in(staging / "prefix" / "bin", "1.5.3")
    )

    install = debian.provide_debian(tmp_path, Silent())

    assert "1.5.3" == install.version


@pytest.fixture
def apt_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A sources.list that apt reads in place of the system's; nothing is fetched for it yet."""
    monkeypatch.setenv("PATH", SYSTEM_PATH)
    if reason := debian.why_not():
        pytest.skip(reason)
    sources = tmp_path / "sources.list"
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    conf = tmp_path / "apt.conf"
    conf.write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{tmp_path / "lists"}";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(conf))
    return sources


def test_configured_mirror(apt_sources: Path) -> None:
    """The mirror that apt is set up with is asked first, Debian's security archive never."""
    apt_sources.write_text(
        "deb http://security.example/debian-security bookworm-security main\n"
        "deb http://mirror.example/pub/debian bookworm main\n"
    )

    assert ["http://mirror.example/pub/debian", debian.OLD_RELEASES] == debian.mirrors()


def test_no_debian_mirror(apt_sources: Path) -> None:
    """Debian's own address is asked where apt knows of no Debian mirror, as on Ubuntu."""
    apt_sources.write_text("deb http://archive.example/ubuntu noble main\n")

    assert [debian.ARCHIVE, debian.OLD_RELEASES] == debian.mirrors()


def test_unsigned_archive(
    apt_sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An archive without Debian's signature is refused before anything of it is unpacked."""
    suite = tmp_path / "debian" / "dists" / "bullseye"
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    packages = suite / "main" / f"binary-{architecture}" / "Packages"
    packages.parent.mkdir(parents=True)
    packages.touch()
    empty = hashlib.sha256(b"").hexdigest()
    (suite / "Release").write_text(
        f"Suite: bullseye\nCodename: bullseye\nComponents: main\nArchitectures: {architecture}\n"
        "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
        f"SHA256:\n {empty} 0 {packages.relative_to(suite)}\n"
    )
    apt_sources.write_text(f"deb file:{tmp_path}/debian bullseye main\n")
    monkeypatch.setattr(debian, "OLD_RELEASES", f"file:{tmp_path}/debian")

    with pytest.raises(FluxdropError, match="not signed"):
        debian.provide_debian(tmp_path / "data", Silent())

    assert [] == list((tmp_path / "data" / "julia-debian").iterdir())
