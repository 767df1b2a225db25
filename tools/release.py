"""Build a release and check it: `python -m tools.release 1.2.3`. Nothing is uploaded and nothing is tagged.

The checks, in order: VERSION has the form X.Y.Z, is the version of the code in Python and in Julia, has a dated section
in CHANGELOG.md, and has no tag yet; the working tree is clean; `twine check` accepts the wheel and the sdist; each of
them installs into an environment of its own, where `fluxdrop --version` and `fluxdrop --help` run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


class ReleaseError(Exception):
    """The release cannot be made; the message is the reason."""


def check_source(root: Path, version: str) -> None:
    """Raise ReleaseError unless the checkout *root* is ready to be released as *version*."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version such as 1.2.3")
    code = (root / "daemon/fluxdrop/__init__.py").read_text()
    if f'__version__ = "{version}"' not in code.splitlines():
        raise ReleaseError(f"daemon/fluxdrop/__init__.py does not say that this is {version}")
    # The worker is part of the package, so it has the package's version.
    worker = tomllib.loads((root / "julia/Project.toml").read_text())
    if worker.get("version") != version:
        raise ReleaseError(f"julia/Project.toml does not say that this is {version}")
    _check_changelog((root / "CHANGELOG.md").read_text(), version)
    if changed := _git(root, "status", "--porcelain"):
        raise ReleaseError(f"the working tree is not clean:\n{changed}")
    if _git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} exists already")


def _check_changelog(text: str, version: str) -> None:
    sections = re.split(r"(?m)^## ", text)[1:]
    heading = re.compile(rf"\[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}")
    released = [body for body in sections if heading.fullmatch(body.partition("\n")[0].strip())]
    if not released:
        raise ReleaseError(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD'")
    if not re.search(r"(?m)^- ", released[0]):
        raise ReleaseError(f"CHANGELOG.md says nothing of what changed in {version}")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.rstrip()


def build(root: Path, dist: Path, version: str) -> tuple[Path, Path]:
    """Build the sdist of *root*, and the wheel from it, into *dist*; return both, wheel first.

    What an earlier build left of the same version is replaced.
    """
    wheel = dist / f"fluxdrop-{version}-py3-none-any.whl"
    sdist = dist / f"fluxdrop-{version}.tar.gz"
    for path in (wheel, sdist):
        path.unlink(missing_ok=True)
    _run(sys.executable, "-m", "build", "--outdir", dist, root)
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def check_install(package: Path, constraints: Path, version: str) -> None:
    """Install *package* into a new environment under *constraints*, and run its command there.

    Raises ReleaseError where the command does not name *version*.
    """
    with tempfile.TemporaryDirectory(prefix="fluxdrop-release-") as folder:
        _run(sys.executable, "-m", "venv", folder)
        programs = Path(folder, "bin")
        pip = (programs / "python", "-m", "pip", "install", "--disable-pip-version-check")
        _run(*pip, "--quiet", "--constraint", constraints, package)
        # In its folder, so that nothing of the checkout can be imported.
        said = subprocess.run(
            [programs / "fluxdrop", "--version"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if said != f"fluxdrop {version}":
            raise ReleaseError(f"{package.name} calls itself {said!r}")
        subprocess.run(
            [programs / "fluxdrop", "--help"], cwd=folder, stdout=subprocess.DEVNULL, check=True
        )


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def main(arguments: list[str]) -> int:
    """Check and build the version that *arguments* name; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m tools.release VERSION", file=sys.stderr)
        return 2
    (version,) = arguments
    try:
        check_source(ROOT, version)
        packages = build(ROOT, ROOT / "dist", version)
        for package in packages:
            check_install(package, ROOT / "constraints.txt", version)
            print(f"{package.name} installs and runs")
    except (ReleaseError, subprocess.CalledProcessError) as error:
        print(f"No release: {error}", file=sys.stderr)
        return 1
    print(f"Nothing was uploaded. Tag this commit v{version}, then upload:")
    for package in packages:
        print(f"    {package.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
