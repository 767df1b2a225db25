"""Checks of a root's folders: whether fluxdrop can use them as it needs to."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fluxdrop.config import Settings
from fluxdrop.doctor.finding import Finding
from fluxdrop.files.filesystem import filesystem_of, needs_polling
from fluxdrop.files.layout import Root
from fluxdrop.ownership import faults_of, of_commands

_SPACE_BROKEN = 100 * 1000**2
"""Fewer free bytes than this are reported as broken, fewer than `_SPACE_NOTE` as a note."""
_SPACE_NOTE = 2 * 1000**3
_MAX_SHOWN = 3
_MAX_CLOCK_OFFSET_SECONDS = 2.0
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


def permissions(root: Root) -> Iterator[Finding]:
    """Check that the folders exist, and may be read and written."""
    folders = (root.inbox, root.generated, root.preprocessed, root.failed, root.state)
    missing = [path for path in folders if not path.is_dir()]
    closed = [path for path in folders if path.is_dir() and not os.access(path, 7)]
    for path in closed:
        yield Finding(
            "folders",
            "broken",
            f"{path} may not be written by user {os.getuid()}",
            "Give the user that serves the root all rights to it: chown, chmod or setfacl.",
        )
    if missing:
        names = ", ".join(str(path.relative_to(root.path)) for path in missing)
        yield Finding("folders", "note", f"missing: {names}", f"Run: fluxdrop init {root.path}")
    elif not closed:
        yield Finding("folders", "ok", f"all are there in {root.path}")


def ownership(settings: Settings, root: Root) -> Iterator[Finding]:
    """Check that nobody else can change what the daemon acts on."""
    # If root runs this, the owner of the root folder is taken as the daemon's user.
    user = os.geteuid() or root.path.stat().st_uid
    found = list(faults_of(root, user))
    if not found and os.geteuid() == user:
        found = list(of_commands(root, settings))
    for fault in found[:_MAX_SHOWN]:
        yield Finding(
            "ownership",
            "note" if settings.shared_root else "broken",
            f"{fault.path} {fault.says}",
            f"Run: {fault.remedy}",
        )
    if len(found) > _MAX_SHOWN:
        yield Finding("ownership", "note", f"the same of {len(found) - _MAX_SHOWN} more")
    if not found:
        yield Finding("ownership", "ok", "settings and state can be changed by their owner alone")


def claims(root: Root) -> Iterator[Finding]:
    """Check that a file can be claimed by one rename."""
    if root.work.is_dir():
        root.check()
        yield Finding("one filesystem", "ok", "a dropped file is claimed by one rename")


def filesystem(root: Root) -> Iterator[Finding]:
    """Report the filesystem of the inbox, and how files are found on it."""
    found = filesystem_of(root.inbox)
    if needs_polling(found):
        yield Finding(
            "filesystem",
            "note",
            f"{found}: files are found by looking every two seconds, not by events",
            "Serve the root on the machine whose disk it is, for less latency.",
        )
    else:
        yield Finding("filesystem", "ok", f"{found or 'unknown'}: files are found by events")


def links(root: Root) -> Iterator[Finding]:
    """Check that hard links work, so that a picture's two names share its space."""
    probe = root.state / f".doctor-{secrets.token_hex(4)}.tmp"
    target = root.outputs / probe.name
    try:
        probe.touch()
        os.link(probe, target)
    except OSError as error:
        if error.errno == errno.EACCES:
            yield Finding(
                "hard links",
                "note",
                f"not checked ({error.strerror})",
                "Run it as the daemon's user.",
            )
            return
        yield Finding(
            "hard links",
            "note",
            f"not possible here ({error.strerror}), so each picture is stored twice",
            "A filesystem such as ext4, xfs or btrfs saves the space.",
        )
    else:
        yield Finding("hard links", "ok", "a picture's two names share its space")
    finally:
        with suppress(PermissionError):
            probe.unlink(missing_ok=True)
            target.unlink(missing_ok=True)


def space(root: Root) -> Iterator[Finding]:
    """Check how much space is free, in bytes and inodes."""
    free = shutil.disk_usage(root.path).free
    inodes = os.statvfs(root.path)
    says = f"{free / 1000**3:,.1f} GB free"
    short_of_inodes = inodes.f_files > 0 and inodes.f_favail < 10_000
    if short_of_inodes:
        says += f", and room for {inodes.f_favail:,} more files only"
    remedy = "Move old results out of outputs/, generated_images/ and preprocessed_images/."
    if free < _SPACE_BROKEN:
        yield Finding("space", "broken", says, remedy)
    elif free < _SPACE_NOTE or short_of_inodes:
        yield Finding("space", "note", says, remedy)
    else:
        yield Finding("space", "ok", says)


def inotify(root: Root) -> Iterator[Finding]:
    """Check that the kernel's limits allow it to watch all folders of the inbox."""
    try:
        watches, instances = (int(path.read_text()) for path in (_WATCHES, _INSTANCES))
    except (OSError, ValueError):
        yield Finding("inotify", "note", "its limits cannot be read", "")
        return
    folders = 1 + sum(len(below) for _, below, _ in os.walk(root.inbox))
    says = f"{watches:,} folders may be watched, the inbox has {folders:,}"
    if folders > watches // 2 or instances < 8:
        yield Finding(
            "inotify",
            "note",
            f"{says}; {instances} programs may watch",
            "Raise fs.inotify.max_user_watches and max_user_instances with sysctl. Until then scans find what"
            " events miss.",
        )
    else:
        yield Finding("inotify", "ok", says)


def clock(root: Root) -> Iterator[Finding]:
    """Check that the clock of this machine and that of the disk's machine agree."""
    probe = root.state / f".doctor-{secrets.token_hex(4)}.tmp"
    before = time.time()
    try:
        probe.touch()
        stamped = probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
    offset = max(before - stamped, stamped - time.time(), 0.0)
    if offset > _MAX_CLOCK_OFFSET_SECONDS:
        yield Finding(
            "clock",
            "note",
            f"the disk's machine is {offset:.0f} s off this one's time",
            "Let both machines set their clocks by NTP.",
        )
    else:
        yield Finding("clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, as the disk has it")
