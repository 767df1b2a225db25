"""Files and folders that programs make beside a person's own files, and files in the making: they are left alone."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

PATTERNS: dict[str, tuple[str, ...]] = {
    "hidden files and folders: of macOS (.DS_Store, ._NAME, .Trashes), GNOME (.goutputstream-X, .Trash-UID), KDE, NFS"
    " (.nfsX), FUSE (.fuse_hiddenX), Samba, LibreOffice (.~lock.NAME#), vim, rsync, ProFTPD, Syncthing (.stversions),"
    " Resilio Sync (.sync), Picasa (.picasa.ini)": (".*",),
    "Microsoft Office": ("~$*", "~wr[dlf]*.tmp"),
    "Syncthing": ("~syncthing~*",),
    "vim and other editors": ("*~",),
    "Emacs": ("#*#",),
    "any program that renames its file when it is whole": (
        "*.tmp",
        "*.temp",
        "*.part",
        "*.partial",
        "*.uploading",
    ),
    "Chrome, Edge and other Chromium browsers": ("*.crdownload",),
    "Safari": ("*.download",),
    "Opera": ("*.opdownload",),
    "WinSCP": ("*.filepart",),
    "aria2": ("*.aria2",),
    "lftp": ("*.lftp-pget-status",),
    "yt-dlp": ("*.ytdl",),
    "Free Download Manager": ("*.fdmdownload",),
    "FlashGet, Thunder": ("*.jc!", "*.td", "*.xltd"),
    "Google Drive": ("*.gstmp", "*.gdownload"),
    "qBittorrent, uTorrent, BitTorrent, BitComet, Vuze": (
        "*.!qb",
        "*.!ut",
        "*.!bt",
        "*.bc!",
        "*.az!",
    ),
    "Resilio Sync": ("*.!sync", "*.bts"),
    "vim": ("*.swp", "*.swx", "*.swo"),
    "macOS, while it saves a document": ("*.sb-????????-??????", "(a document being saved by *"),
    "macOS: the icon of a folder; \\uf00d stands for the line end on SMB": (
        "icon\r",
        "icon\uf00d",
    ),
    "macOS, on disks that others use": (
        "__macosx",
        "network trash folder",
        "temporary items",
        "thevolumesettingsfolder",
    ),
    "streams of NTFS, as Samba and WSL (\\uf03a, \\uf022) write them": (
        "*[:\uf03a\uf022]zone.identifier",
        "*[:\uf03a\uf022]zone.identifier:$data",
        "*[:\uf03a\uf022]encryptable",
        "*[:\uf03a\uf022]smartscreen",
        "*[:\uf03a\uf022]afp_*",
        "*[:\uf03a\uf022]com.apple.*",
    ),
    "Windows": (
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "wpsettings.dat",
    ),
    "Picasa": ("picasa.ini",),
    "iOS and Photos: what was edited": ("*.aae",),
    "Lightroom, darktable, digiKam: metadata": ("*.xmp",),
    "RawTherapee, DxO, ON1": ("*.pp3", "*.dop", "*.on1"),
    "cameras: a film's picture and proxy": ("*.thm", "*.lrv"),
    "ext2, ext3, ext4": ("lost+found",),
    "Synology": ("#recycle", "#snapshot", "@eadir", "@tmp", "@synoresource", "@synoeastream"),
    "QNAP": ("@recycle", "@recently-snapshot", "@recently-snapshots", "@transcode"),
}
"""Patterns of `fnmatch` in lower case, by the programs that write such names."""

_MAGIC = re.compile(r"[*?\[]")


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that returns whether a name matches any of *patterns*, capitals or not.

    Most patterns are a name, its beginning or its end, which are looked up without an expression.
    """
    names: set[str] = set()
    beginnings: list[str] = []
    ends: list[str] = []
    others: list[str] = []
    for pattern in map(str.lower, patterns):
        if not _MAGIC.search(pattern):
            names.add(pattern)
        elif pattern.endswith("*") and not _MAGIC.search(pattern[:-1]):
            beginnings.append(pattern[:-1])
        elif pattern.startswith("*") and not _MAGIC.search(pattern[1:]):
            ends.append(pattern[1:])
        else:
            others.append(fnmatch.translate(pattern))
    starts_with, ends_with = tuple(beginnings), tuple(ends)
    other = re.compile("|".join(others)).match if others else None

    def matches(name: str) -> bool:
        name = name.lower()
        return (
            name in names
            or name.startswith(starts_with)
            or name.endswith(ends_with)
            or (other is not None and other(name) is not None)
        )

    return matches


def side_files(ignore: Iterable[str] = ()) -> Callable[[str], bool]:
    """Return a function that returns whether a file or folder with a name is left alone.

    Args:
        ignore: Further patterns: the setting `ignore`.
    """
    known = (pattern for patterns in PATTERNS.values() for pattern in patterns)
    return matcher([*known, *ignore])


is_side_file = side_files()
"""Whether a name is left alone whatever the settings say."""
