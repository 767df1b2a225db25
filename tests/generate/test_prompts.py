"""Reading prompt files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.prompt_file import read_prompt
from support.irregular import each_irregular


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a cat\n", "a cat\n"),
        ("naïve 日本\r\n".encode(), "naïve 日本\r\n"),
        (b"\xef\xbb\xbfa cat", "a cat"),
        (b"", ""),
        (b"x" * 20, "x" * 20),
        ("caf\u00e9\r\n".encode("utf-16"), "caf\u00e9\r\n"),
        (b"\xfe\xff" + "caf\u00e9".encode("utf-16-be"), "caf\u00e9"),
        ("cat".encode("utf-32"), "cat"),
    ],
)
def test_read(tmp_path: Path, data: bytes, text: str) -> None:
    """A prompt file up to the limit is read as UTF-8, or as its byte order mark says, and without that."""
    path = tmp_path / "cat.txt"
    path.write_bytes(data)

    assert text == read_prompt(path, 20)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"x" * 21, "cat.txt has more than 20 bytes, the limit for a prompt."),
        (b"caf\xe9", "cat.txt is not UTF-8 text: byte 4 is 0xE9."),
        (
            "cat".encode("utf-16-le"),
            "cat.txt looks like UTF-16 without a byte order mark, or is not text: it has zero bytes.",
        ),
        (b"\xff\xfec\0a", "cat.txt is not UTF-16-LE text: byte 5 is 0x61."),
    ],
)
def test_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    """A file that is too large or is no text is refused with what is wrong and what to do."""
    path = tmp_path / "cat.txt"
    path.write_bytes(data)

    with pytest.raises(FluxdropError) as caught:
        read_prompt(path, 20)

    assert (sentence, "prompt") == (caught.value.message, caught.value.kind)
    assert caught.value.hint


@each_irregular
def test_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """What is not a regular file any more is refused, and nothing is waited for."""
    path = tmp_path / "cat.txt"
    make(path)

    with pytest.raises(FluxdropError, match=r"^cat\.txt ") as caught:
        read_prompt(path, 20)

    assert "prompt" == caught.value.kind
