"""Check who may change what the daemon acts on: its settings, its state and native models.

They must belong to the daemon's user or to root, and nobody else may be able to write them.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluxdrop import config
from fluxdrop.config import HostSettings, Settings
from fluxdrop.config.hooks import commands_of
from fluxdrop.errors import FluxdropError
from fluxdrop.files.filesystem import filesystem_of
from fluxdrop.files.layout import Root

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_COMMANDS = 3
_DEFAULT_ACL = "system.posix_acl_default"
# The kernel's form of acl(5): an entry's tag, permissions and id, and the permission to write.
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
_ACL_WRITE = 0x02
# On these, everything belongs to whoever mounted it, with modes from the mount's options.
_WITHOUT_OWNERS = frozenset(
    {"vfat", "msdos", "exfat", "ntfs", "ntfs3", "cifs", "smb3", "9p", "vboxsf"}
)


_SHARE = (
    "Share inbox/ and outputs/ with others, not the root (docs/operations.md). --shared-root is for a root whose"
    " users may all do what the daemon may."
)
_COMMANDS = "A command in [hooks] is run only where nobody else can choose or change it; a URL is used in any root."


class OwnershipFault(NamedTuple):
    """A reason not to trust *path*."""

    path: Path
    says: str
    """What is wrong, as a predicate of which *path* is the subject."""
    remedy: str
    """The command that corrects it."""


def load_trusted(root: Root, flags: Mapping[str, Any]) -> Settings:
    """Return the settings of *root* after checking that no other user can change what the daemon acts on.

    The setting `shared_root` switches the check off, but not if it comes from a fluxdrop.toml that others
    can change.

    Args:
        root: The root.
        flags: Values of flags, as for `config.load`.

    Raises:
        FluxdropError: Of kind ``root`` if another user than this process's and root can change something;
            the hint has the commands that correct it. Otherwise as `config.load`.
    """
    if not config.load(None, flags).shared_root:
        refuse(root, _before_settings(root))
    settings = config.load(root.path, flags)
    if not settings.shared_root:
        refuse(root, of_state(root))
    refuse(root, of_commands(root, settings), _COMMANDS)
    return settings


def load_trusted_host(environ: Mapping[str, str] = os.environ) -> HostSettings:
    """Return the settings of this GPU host after checking that no other user can change their file.

    Raises:
        FluxdropError: Kind ``config`` if another user than this process's and root can; otherwise as
            `read_host_settings`.
    """
    file = config.host_file(environ)
    settings = config.read_host_settings(file)
    fault = next(of_code(file), None) if file.exists() else None
    if fault is not None:
        raise FluxdropError(
            f"{file} is not used, as others can change it: {fault.path} {fault.says}",
            hint=f"Run: {fault.remedy}",
            kind="config",
        )
    return settings


def _before_settings(root: Root) -> Iterator[OwnershipFault]:
    """Yield why the settings cannot be trusted and, if there is a reason, all other faults too.

    So one error names everything that has to be corrected.
    """
    faults = list(of_settings(root))
    yield from faults
    if faults:
        yield from of_state(root)


def narrow_umask() -> None:
    """Set a umask with which only this process's user can write the files it creates."""
    os.umask(os.umask(0o077) | _OTHERS_WRITE)


def open_to_group(root: Root, user: str | None, group: str) -> None:
    """Let a group read *root*, drop files into its inbox and leave requests, and nothing else.

    Args:
        root: The root.
        user: The owner of all folders; this process's user by default.
        group: The group.

    Raises:
        FluxdropError: User or group is unknown, or this process may not make the change.
    """
    try:
        uid = os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
        gid = grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise FluxdropError(f"{str(error.args[0]).capitalize()}", kind="root") from error
    modes = dict.fromkeys(
        [root.path, *root.shared, root.failed, root.state, *_folders(root.state)], 0o2750
    )
    # A member of the group may put a file into requests/, but neither list nor remove others' files.
    modes |= {root.inbox: 0o2770, root.requests: 0o3730}
    try:
        for folder, mode in modes.items():
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
    except OSError as error:
        raise FluxdropError(
            f"{folder} cannot be given to {_user(uid)} and {_group(gid)}: {error.strerror}",
            hint="Run it as root, or as a member of the group who owns the folder.",
            kind="root",
        ) from error


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir() and not path.is_symlink()]


def of_commands(root: Root, settings: Settings) -> Iterator[OwnershipFault]:
    """Yield what lets other users choose a command of [hooks], or change its program. Raises OSError.

    `shared_root` switches off the other checks and not this one: a command runs with all rights of the daemon's user.
    """
    commands = commands_of(settings.hooks)
    if commands:
        yield from of_settings(root)
    for words in commands:
        program = shutil.which(root.path / words[0] if "/" in words[0] else words[0])
        if program is not None:
            yield from of_code(Path(program))


def refuse(root: Root, faults: Iterable[OwnershipFault], advice: str = _SHARE) -> None:
    """Raise FluxdropError, kind ``root``, with *advice*, if there are any *faults* of *root* or of its commands."""
    try:
        found = list(faults)
    except OSError as error:
        raise FluxdropError(
            f"{error.filename} cannot be looked at: {error.strerror}", kind="root"
        ) from error
    if not found:
        return
    more = len(found) - 1
    paths = "1 more path" if more == 1 else f"{more} more paths"
    raise FluxdropError(
        f"{found[0].path} {found[0].says}: whoever can change it can change what fluxdrop does"
        f" as user {_user(os.geteuid())}",
        hint=(f"The same applies to {paths} in {root.path}. " if more else "")
        + _remedy(root, found, advice),
        kind="root",
    )


def faults_of(root: Root, user: int) -> Iterator[OwnershipFault]:
    """Yield the faults for which a daemon of *user* would refuse to serve *root*."""
    yield from of_settings(root, user)
    yield from of_state(root, user)


def of_settings(root: Root, user: int | None = None) -> Iterator[OwnershipFault]:
    """Yield the faults of the folder *root* and of fluxdrop.toml.

    *user* is the daemon's; this process's by default. Raises OSError.
    """
    status = root.path.stat()
    # In a folder with the sticky bit, nobody can rename or remove another user's file.
    sticky = bool(status.st_mode & stat.S_ISVTX)
    yield from _faults(root.path, user, allowed=_OTHERS_WRITE if sticky else 0)
    yield from _faults(root.path / config.FILE, user)


def of_state(root: Root, user: int | None = None) -> Iterator[OwnershipFault]:
    """Yield the faults of .fluxdrop/ and its contents; *user* is as in `of_settings`.

    The contents of jobs' folders are not checked: an input belongs to whoever dropped it.
    """
    yield from _faults(root.state, user)
    for path in _entries(root.state):
        # The owner may let the group leave requests.
        yield from _faults(path, user, allowed=stat.S_IWGRP if path == root.requests else 0)
        if path == root.models:
            yield from _faults_below(path, user)
        elif path not in (root.requests, root.refused):
            for below in _entries(path):
                yield from _faults(below, user)


def of_code(folder: Path) -> Iterator[OwnershipFault]:
    """Yield what lets any user but root and this process's change the code in *folder*.

    That is write access to it, to its contents or to one of its parents, in which another folder could
    be put in its place. Raises OSError.
    """
    seen: set[Path] = set()
    left = [folder]
    while left:
        path = left.pop().resolve()
        for parent in (path, *path.parents):
            if parent in seen:
                continue
            seen.add(parent)
            status = parent.stat()
            sticky = parent != path and bool(status.st_mode & stat.S_ISVTX)
            yield from _faults(parent, None, allowed=_OTHERS_WRITE if sticky else 0)
        for below in _tree(path):
            if below.is_symlink():
                left.append(below)
            yield from _faults(below, None)


def _entries(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        # The folder is another user's, which is already a fault.
        return []


def _tree(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        yield from (Path(current, name) for name in sorted([*folders, *files]))


def _faults_below(folder: Path, user: int | None) -> Iterator[OwnershipFault]:
    for path in _tree(folder.resolve() if folder.is_symlink() else folder):
        yield from _faults(path, user)


def _faults(path: Path, user: int | None, allowed: int = 0) -> Iterator[OwnershipFault]:
    """Yield the faults of *path* and, if it is a symlink, of its target; none if it does not exist.

    *allowed* are write bits of the mode that are not a fault.
    """
    user = os.geteuid() if user is None else user
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            yield from _owned_by_another(path, status, user)
            status = path.stat()
    except FileNotFoundError:
        return
    yield from _owned_by_another(path, status, user)
    quoted = shlex.quote(str(path))
    # With an ACL, the group's bits are its mask: the most that any user or group in it may do.
    if status.st_mode & _OTHERS_WRITE & ~allowed:
        who = "everybody" if status.st_mode & stat.S_IWOTH & ~allowed else _group(status.st_gid)
        yield OwnershipFault(
            path,
            f"may be written by {who} (mode {stat.S_IMODE(status.st_mode):04o})",
            f"chmod go-w {quoted}",
        )
    elif stat.S_ISDIR(status.st_mode) and not allowed and _gives_write(path):
        says = "has a default ACL by which others may write what is made in it"
        yield OwnershipFault(path, says, f"setfacl --remove-default {quoted}")


def _owned_by_another(path: Path, status: os.stat_result, user: int) -> Iterator[OwnershipFault]:
    if status.st_uid not in (0, user):
        yield OwnershipFault(
            path,
            f"belongs to user {_user(status.st_uid)}",
            f"chown --no-dereference {_user(user)} {shlex.quote(str(path))}",
        )


def _gives_write(folder: Path) -> bool:
    try:
        acl = os.getxattr(folder, _DEFAULT_ACL)
    except OSError:
        return False
    entries = [(tag, bits & _ACL_WRITE) for tag, bits, _ in _ACL_ENTRY.iter_unpack(acl[4:])]
    masked = all(bits for tag, bits in entries if tag == _ACL_MASK)
    named = (_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP)
    return any(bits and (tag == _ACL_OTHER or (tag in named and masked)) for tag, bits in entries)


def _remedy(root: Root, faults: list[OwnershipFault], advice: str) -> str:
    filesystem = filesystem_of(root.path)
    # Most FUSE filesystems keep owners only with an option (ntfs-3g(8): permissions).
    is_without_owners = filesystem in _WITHOUT_OWNERS or filesystem.startswith("fuse")
    if is_without_owners and advice == _SHARE:
        return (
            f"This filesystem ({filesystem}) keeps no owners: mount it with"
            f" uid={_user(os.geteuid())},umask=022 (or the options that its driver has for these),"
            " or start with --shared-root if all who can write here may decide what the daemon does."
        )
    state = str(root.state)
    commands = [fault.remedy for fault in faults]
    if len(commands) > _MAX_COMMANDS:
        owner = f"chown -R --no-dereference {_user(os.geteuid())}"
        inside = [fault for fault in faults if str(fault.path).startswith(state)]
        commands = [fault.remedy for fault in faults if fault not in inside][:_MAX_COMMANDS]
        whole = {"chown": owner, "chmod": "chmod -R go-w", "setfacl": "setfacl -R --remove-default"}
        used = {fault.remedy.split()[0] for fault in inside}
        commands += [f"{whole[name]} {shlex.quote(state)}" for name in whole if name in used]
    return f"Run: {' && '.join(commands)}. {advice}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return f"the group {grp.getgrgid(number).gr_name}"
    except KeyError:
        return f"the group {number}"
