"""Read the texts in a picture's metadata: a PNG's text chunks, and the EXIF data of PNG, JPEG and WebP.

The pixels are not read. https://www.w3.org/TR/png-3/#11textinfo describes the chunks.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.files.durable import NotRegularError
from fluxdrop.files.regular import open_given

MAX_TEXT_BYTES = 64 * 1024
"""The largest text that is read. A compressed chunk may unpack to far more than its size on the disk."""
MAX_GRAPH_BYTES = 4 * 1024 * 1024
"""The same for ComfyUI's graph."""

USER_COMMENT = "UserComment"
EXIF_MODEL = "exif:Model"
XMP = "XML:com.adobe.xmp"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 10_000
_MAX_KEY = 79
_LIMITS = {"prompt": MAX_GRAPH_BYTES}
# A text of these that is too long is an error; others are left out, such as ComfyUI's workflow.
_NEEDED = ("parameters", "prompt", "invokeai_metadata", "Comment")
_EXIF_IFD, _USER_COMMENT, _MODEL = 0x8769, 0x9286, 0x0110


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts in the picture *path* by their keys; those of EXIF by `USER_COMMENT` and `EXIF_MODEL`.

    Raises:
        FluxdropError: Kind ``png-info``, when the file cannot be read or a text is too long.
    """
    try:
        with open_given(path) as file:
            if file.peek(len(_SIGNATURE)).startswith(_SIGNATURE):
                return _png_texts(file, path)
            return _pillow_texts(file, path)
    except FileNotFoundError:
        raise png_info_error(f"There is no file {path}") from None
    except NotRegularError as error:
        raise png_info_error(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        raise png_info_error(f"{path} cannot be read: {error}") from error


def png_info_error(message: str, hint: str = "") -> FluxdropError:
    """Return the error for a picture whose parameters cannot be read."""
    return FluxdropError(message, hint=hint, kind="png-info")


def _no_picture(path: Path) -> FluxdropError:
    return png_info_error(
        f"{path} is not a PNG picture, or not a whole one, nor is it a JPEG or WebP picture"
    )


def _png_texts(file: BufferedReader, path: Path) -> dict[str, str]:
    """Return the texts of a PNG; chunks behind the pixels count, too."""
    file.seek(len(_SIGNATURE))
    texts: dict[str, str] = {}
    pixels = False
    for _number in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        end = file.tell() + length + 4
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts |= _chunk_text(kind, file, length, path)
        elif kind == b"eXIf" and length <= MAX_TEXT_BYTES:
            texts |= _exif_texts(b"Exif\0\0" + file.read(length))
        elif kind == b"IDAT":
            pixels = True
        elif kind == b"IEND":
            return texts
        file.seek(end)
    if not pixels:
        raise _no_picture(path)
    return texts


def _chunk_text(kind: bytes, file: BufferedReader, length: int, path: Path) -> dict[str, str]:
    """Return the text of a chunk by its key; nothing if it is malformed, or long and not needed."""
    data = file.read(min(length, MAX_GRAPH_BYTES + 2 * _MAX_KEY))
    name, _zero, rest = data[: _MAX_KEY + 1].partition(b"\0")
    key = name.decode("latin-1")
    rest = data[len(name) + 1 :]
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed = rest[:1] == b"\1"
        # The language, then the key in that language.
        rest = rest[2:].split(b"\0", 2)[-1]
    limit = _LIMITS.get(key, MAX_TEXT_BYTES)
    if compressed:
        try:
            unpacker = zlib.decompressobj()
            rest = unpacker.decompress(rest, limit + 1)
        except zlib.error:
            return {}
    if len(rest) > limit:
        if key in _NEEDED:
            raise png_info_error(
                f"{path} cannot be read: it has more than {limit:,} bytes of {key}"
            )
        return {key: ""}
    return {key: _decoded(rest)}


def _decoded(data: bytes) -> str:
    """Decode a text: UTF-8, which many programs write where Latin-1 is due, too."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _pillow_texts(file: BufferedReader, path: Path) -> dict[str, str]:
    """Return the texts of a JPEG or WebP."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Damaged metadata makes Pillow raise errors of any class.
        try:
            with Image.open(file, formats=["JPEG", "WEBP"]) as image:
                info = dict(image.info)
        except Exception as error:
            raise _no_picture(path) from error
    texts = _exif_texts(info["exif"]) if isinstance(info.get("exif"), bytes) else {}
    for key, name in (("comment", "Comment"), ("xmp", XMP)):
        if isinstance(data := info.get(key), bytes) and len(data) <= MAX_TEXT_BYTES:
            texts[name] = _decoded(data)
    return texts


def _exif_texts(data: bytes) -> dict[str, str]:
    """Return the texts of EXIF *data* in which programs write parameters; none if it is damaged."""
    from PIL import Image

    if len(data) > MAX_GRAPH_BYTES:
        return {}
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif = Image.Exif()
            exif.load(data)
            inner: Mapping[int, Any] = exif.get_ifd(_EXIF_IFD)
            # Fooocus writes it beside the directory that it belongs to.
            found[USER_COMMENT] = inner.get(_USER_COMMENT, exif.get(_USER_COMMENT))
            found[EXIF_MODEL] = exif.get(_MODEL)
        except Exception:
            return {}
    texts = {
        key: _user_comment(value) if isinstance(value, bytes) else value
        for key, value in found.items()
    }
    return {key: text for key, text in texts.items() if isinstance(text, str) and text.strip("\0 ")}


def _user_comment(data: bytes) -> str:
    """Decode EXIF's UserComment, which begins with eight bytes for its encoding (EXIF 2.32, section 4.6.5)."""
    encoding, text = data[:8], data[8:]
    if encoding == b"UNICODE\0":
        # The standard leaves the byte order open. stable-diffusion-webui writes big endian, SwarmUI little endian.
        zeros_first = text[::2].count(0) >= text[1::2].count(0)
        return text.decode("utf-16-be" if zeros_first else "utf-16-le", "replace").strip("\ufeff\0")
    if encoding in (b"ASCII\0\0\0", b"\0" * 8):
        return _decoded(text).strip("\0")
    return _decoded(data).strip("\0")
