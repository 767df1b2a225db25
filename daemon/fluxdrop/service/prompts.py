"""Reading a prompt file that nobody vouches for."""

from __future__ import annotations

from pathlib import Path

from fluxdrop.errors import FluxdropError
from fluxdrop.jobs.regular import open_regular


def read_prompt(path: Path, max_bytes: int, name: str = "") -> str:
    """The text of the prompt file *path*, which errors call *name*.

    Raises FluxdropError, kind ``prompt``, when it cannot be read, is too large or is not UTF-8.
    """
    with open_regular(path, "prompt", name) as file:
        data = file.read(max_bytes + 1)
    name = name or path.name
    if len(data) > max_bytes:
        raise FluxdropError(
            f"{name} has more than {max_bytes:,} bytes, the limit for a prompt",
            hint="Shorten it, or raise max_prompt_bytes in fluxdrop.toml.",
            kind="prompt",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        looks = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise FluxdropError(
            f"{name} is not UTF-8 text{looks}: byte {error.start + 1} is 0x{data[error.start]:02X}",
            hint="Save it as UTF-8 and drop it once more.",
            kind="prompt",
        ) from error
