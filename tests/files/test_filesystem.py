"""What depends on the filesystem of a folder."""

from __future__ import annotations

import pytest

from fluxdrop.files.filesystem import settle_seconds


@pytest.mark.parametrize(
    ("filesystem", "seconds"),
    [
        *((local, 2.0) for local in ("ext4", "btrfs", "tmpfs", "overlay", "")),
        *((share, 10.0) for share in ("nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs")),
    ],
)
def test_settle_seconds(filesystem: str, seconds: float) -> None:
    """By default a file has to stand still for longer on a share; a number in the settings holds everywhere."""
    assert seconds == settle_seconds("auto", filesystem)
    assert 0.5 == settle_seconds(0.5, filesystem)
