"""Names that are equal to people and to other systems, though not to Linux: Cat and cat, or accents in two forms.

On a share for Windows or macOS, only one of two such files can be opened.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fluxdrop.files.io_lock import release_io_lock
from fluxdrop.picture_formats import PICTURE_SUFFIXES

_SUFFIXES = {"json", "npy", "txt", *(suffix[1:] for suffix in PICTURE_SUFFIXES)}
_ERROR = ".error.json"
_MAX_FOLDERS = 256
_MAX_NAMES = 2_000_000


def folded(name: str) -> str:
    """Return what is the same for all names that are equal on a share: capitals and forms of accents do not count.

    See https://www.unicode.org/versions/Unicode16.0.0/core-spec/chapter-3/#G34145 (D145).
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


class SimilarNames:
    """Finds names on the disk that are equal to a given one, but for capitals and accents. One thread owns it.

    Each folder is listed once; of its names, those that differ from their folded form are kept. What this process
    publishes is added. What somebody else adds later is not found, nor what is in a folder that cannot be read.
    """

    def __init__(self, tops: Sequence[Path], *, keeps_suffix: bool = False) -> None:
        """Prepare for the folders *tops*, in each of which NAMEs lie; see `NameChooser.choose` for *keeps_suffix*."""
        self._tops = tops
        self._keeps_suffix = keeps_suffix
        self._folders: dict[str, dict[str, str]] = {}
        """The names in each folder below the tops, by their folded forms."""
        self._count = 0
        self._coming: set[str] = set()
        """The folders of the NAMEs that were added and are not published yet."""

    def of(self, name: str) -> Iterator[str]:
        """Yield names in the folder of *name* that may be there and are equal to it, but not the same.

        *name* is a NAME or a folder, as a path below the tops; so are those that are yielded.
        """
        folder, slash, last = name.rpartition("/")
        key = folded(last)
        if key != last:
            yield f"{folder}{slash}{key}"
        other = self._names(folder).get(key, last)
        if other != last:
            yield f"{folder}{slash}{other}"

    def hides(self, folder: str) -> bool:
        """Return whether another folder is equal to *folder*, where *folder* itself is not there."""
        return any(
            (other in self._coming or (top / other).is_dir()) and not os.path.lexists(top / folder)
            for other in self.of(folder)
            for top in self._tops
        )

    def add(self, name: str) -> None:
        """Note that the NAME *name*, and the folders above it, will be there by the time of `settle`."""
        while name:
            folder, _, last = name.rpartition("/")
            self._coming.add(folder)
            if folder in self._folders and folded(last) != last:
                self._count += 1
                self._folders[folder].setdefault(folded(last), last)
            name = folder

    def settle(self) -> None:
        """Note that what was added is there now, or never will be."""
        self._coming.clear()

    def _names(self, folder: str) -> dict[str, str]:
        names = self._folders.pop(folder, None)
        if names is None:
            if len(self._folders) >= _MAX_FOLDERS or self._count > _MAX_NAMES:
                self._folders.clear()
                self._count = 0
            names = {}
            with release_io_lock():
                for top in self._tops:
                    names |= _listed(top / folder, self._keeps_suffix)
            self._count += len(names)
        self._folders[folder] = names
        return names


def _listed(folder: Path, keeps_suffix: bool) -> dict[str, str]:
    """Return the NAMEs in *folder* that differ from their folded forms, by these."""
    try:
        entries = os.listdir(folder)  # noqa: PTH208 - there may be very many
    except OSError:
        return {}
    # Of most names, nothing is to be folded.
    entries = [entry for entry in entries if not (entry.isascii() and entry == entry.lower())]
    if keeps_suffix:
        names = (entry.removesuffix(_ERROR) for entry in entries)
    else:
        parts = (entry.rpartition(".") for entry in entries)
        names = (
            stem if suffix.lower() in _SUFFIXES else stem + dot + suffix
            for stem, dot, suffix in parts
        )
    return {key: name for name in names if (key := folded(name)) != name}
