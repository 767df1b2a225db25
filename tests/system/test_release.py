"""`make release` refuses what is not ready, before it builds anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tools.release import ReleaseError, check_source, main

CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-01-31

### Added

- A thing.

## [1.2.2] - 2026-01-01

"""


def git(checkout: Path, *arguments: str) -> None:
    """Run git in *checkout*, as somebody."""
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run(["git", *who, *arguments], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed checkout that is ready to be released as 1.2.3."""
    package = tmp_path / "daemon/fluxdrop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""It."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "julia").mkdir()
    (tmp_path / "julia/Project.toml").write_text('name = "Worker"\nversion = "1.2.3"\n')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_ready(checkout: Path) -> None:
    """A clean checkout whose code and changelog name the version is accepted."""
    check_source(checkout, "1.2.3")


@pytest.mark.parametrize("version", ["", "1.2", "v1.2.3", "1.2.3rc1", "01.2.3", "1.2.3\n"])
def test_no_version(checkout: Path, version: str) -> None:
    """What is no X.Y.Z is refused."""
    with pytest.raises(ReleaseError, match="is not a version"):
        check_source(checkout, version)


def test_other_version_in_the_code(checkout: Path) -> None:
    """A version that is not the code's is refused."""
    with pytest.raises(ReleaseError, match=r"__init__\.py does not say that this is 1\.2\.4"):
        check_source(checkout, "1.2.4")


def test_other_version_of_the_worker(checkout: Path) -> None:
    """A version that is the code's in Python but not in Julia is refused."""
    (checkout / "julia/Project.toml").write_text('name = "Worker"\nversion = "1.2.2"\n')
    git(checkout, "commit", "--quiet", "--all", "--message", "Change")

    with pytest.raises(ReleaseError, match=r"Project\.toml does not say that this is 1\.2\.3"):
        check_source(checkout, "1.2.3")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("## [1.2.3] - 2026-01-31", "## [1.2.1] - 2026-01-31", "has no section"),
        ("## [1.2.3] - 2026-01-31", "## [1.2.3]", "has no section"),
        ("## [1.2.3] - 2026-01-31", "## [11213] - 2026-01-31", "has no section"),
        ("- A thing.", "", "says nothing"),
    ],
)
def test_changelog(checkout: Path, before: str, after: str, reason: str) -> None:
    """A changelog without a dated section for the version, or with an empty one, is refused."""
    (checkout / "CHANGELOG.md").write_text(CHANGELOG.replace(before, after))
    git(checkout, "commit", "--quiet", "--all", "--message", "Change")

    with pytest.raises(ReleaseError, match=reason):
        check_source(checkout, "1.2.3")


def test_unclean(checkout: Path) -> None:
    """A changed file, and one that git does not know, is refused and named."""
    (checkout / "new.txt").touch()

    with pytest.raises(ReleaseError, match=r"(?s)not clean.*new\.txt"):
        check_source(checkout, "1.2.3")


def test_tagged(checkout: Path) -> None:
    """A version that has its tag is refused."""
    git(checkout, "tag", "v1.2.3")

    with pytest.raises(ReleaseError, match=r"v1\.2\.3 exists"):
        check_source(checkout, "1.2.3")


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["1.2"], 1), (["1.2.3", "now"], 2)])
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal ends with 1 and a wrong call with 2, and each says why on stderr."""
    assert code == main(arguments)

    assert capsys.readouterr().err
