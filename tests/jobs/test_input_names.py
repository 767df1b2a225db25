"""What a file's name says of it."""

from __future__ import annotations

import pytest

from fluxdrop.jobs.input_names import is_ignored, kind_of


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
    ],
)
def test_ignored(name: str) -> None:
    """Names of hidden files, of files in the making and of a system's own are passed over."""
    assert is_ignored(name)


@pytest.mark.parametrize(
    "name",
    ["cat.png", "tmp.png", "part.txt", "a.b.c.png", "partial", "cat~1.png", "@home.png", "-"],
)
def test_not_ignored(name: str) -> None:
    """A name that only resembles those is not."""
    assert not is_ignored(name)
