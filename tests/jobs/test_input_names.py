"""What a file's name says of it."""

from __future__ import annotations

import pytest

from fluxdrop.jobs.input_names import kind_of
from fluxdrop.jobs.side_files import PATTERNS, is_side_file, side_files


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cat.txt", "prompt"),
        ("CAT.TXT", "prompt"),
        ("cat.png", "picture"),
        ("cat.JPG", "picture"),
        ("cat.jpeg", "picture"),
        ("cat.webp", "picture"),
        ("sub folder/Süße Katze 1.png", "picture"),
        ("archive.tar.png", "picture"),
        ("cat.png.txt", "prompt"),
        ("cat\udcff.png", "picture"),
        ("cat.pdf", None),
        ("cat", None),
        ("cat.", None),
        ("png", None),
        (".png", None),
        ("cat.png/notes", None),
    ],
)
def test_kind(name: str, kind: str | None) -> None:
    """The last suffix tells prompts from pictures and both from the rest, in capitals or not."""
    assert kind == kind_of(name)


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.png",
        ".DS_Store",
        "._cat.png",
        ".cat.png.Xy12ab",
        ".syncthing.cat.png.tmp",
        "~syncthing~cat.png.tmp",
        ".goutputstream-AB12CD",
        "~$cat.txt",
        "#cat.txt#",
        "cat.txt~",
        "cat.png.part",
        "cat.png.partial",
        "cat.png.tmp",
        "CAT.PNG.TMP",
        "cat.png.crdownload",
        "Unconfirmed 12345.crdownload",
        "cat.png.filepart",
        "cat.png.download",
        "cat.png.aria2",
        ".cat.txt.swp",
        "Thumbs.db",
        "desktop.ini",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "@eaDir",
        "__MACOSX",
        "cat.png:Zone.Identifier",
        "cat.png\uf03aZone.Identifier",
        "cat.png:Zone.Identifier:$DATA",
        "cat.png:AFP_AfpInfo",
        "Icon\r",
        "Thumbs.db:encryptable",
        "Picasa.ini",
        ".picasa.ini",
        "IMG_0001.AAE",
        "cat.jpg.xmp",
        "cat.png.lftp-pget-status",
        "cat.png.!qB",
        "cat.png.!ut",
        "cat.png.bc!",
        "cat.png.uploading",
        "@Recycle",
        "@Recently-Snapshot",
        "#recycle",
        ".Trash-1000",
        ".stversions",
        ".sync",
        "cat.txt.sb-1a2b3c4d-Xy12Ab",
        "(A Document Being Saved By TextEdit)",
    ],
)
def test_ignored(name: str) -> None:
    """Names of hidden files, of files in the making and of a system's own are passed over."""
    assert is_side_file(name)


@pytest.mark.parametrize(
    "name",
    [
        *("cat.png", "tmp.png", "part.txt", "a.b.c.png", "partial", "cat~1.png", "@home.png", "-"),
        *("#1 sunset.png", "#sunset.txt", "~1 star.png", "~ waves.txt"),
        *("12:30.png", "icon.png", "recycle", "xmp.txt", "thumbs.png", "zone.identifier.txt"),
    ],
)
def test_not_ignored(name: str) -> None:
    """A name that only resembles those is not."""
    assert not is_side_file(name)


def test_ignore() -> None:
    """Patterns of the settings are names, beginnings, ends or anything else, capitals or not, beside the known ones."""
    is_ignored = side_files(["Drafts", "*.Part2", "wip-*", "a?c[12].png"])
    names = [
        "drafts",
        "DRAFTS",
        "cat.part2",
        "WIP-cat.png",
        "abc1.PNG",
        "abc3.png",
        "cat.png",
        "cat.part",
    ]

    assert [True] * 5 + [False] * 2 + [True] == [is_ignored(name) for name in names]


def test_patterns_are_in_lower_case() -> None:
    """Names are compared in lower case, so a pattern with a capital would match nothing."""
    patterns = [pattern for patterns in PATTERNS.values() for pattern in patterns]

    assert patterns == [pattern.lower() for pattern in patterns]
    assert len(set(patterns)) == len(patterns)
