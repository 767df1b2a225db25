"""Check the values of the table ``[hooks]``."""

from __future__ import annotations

from urllib.parse import urlsplit

from fluxdrop.config.tables import HooksTable
from fluxdrop.errors import FluxdropError

_WHAT = 'Write a command as a list of its words, such as ["/usr/local/bin/notify", "--quiet"], or a URL.'


def check_hooks(hooks: HooksTable, file: str) -> None:
    """Check the commands and URLs of *hooks*, which *file* has.

    Raises:
        FluxdropError: One can be neither; kind ``config``.
    """
    for name in ("on_done", "on_failed"):
        value = getattr(hooks, name)
        problem = _problem_of_command(value) if isinstance(value, list) else _problem_of_url(value)
        if problem:
            raise FluxdropError(f"hooks.{name} in {file} {problem}", hint=_WHAT, kind="config")


def commands_of(hooks: HooksTable) -> list[list[str]]:
    """Return the commands of *hooks*."""
    return [value for value in (hooks.on_done, hooks.on_failed) if isinstance(value, list)]


def _problem_of_command(words: list[str]) -> str:
    if not words or not words[0]:
        return "is a command without a name"
    return "has a NUL character" if any("\0" in word for word in words) else ""


def _problem_of_url(text: str) -> str:
    if not text:
        return ""
    try:
        url = urlsplit(text)
        is_right = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError as error:
        return f"is no URL: {error}"
    if not is_right:
        return f"is {text!r}, which is neither a command nor a URL of http or https"
    if url.username is not None or url.password is not None:
        return "has a password in its URL, where logs would show it; the receiver checks the signature instead"
    if url.fragment or not text.isascii() or not text.isprintable() or " " in text:
        return f"is {text!r}, which no server is asked for: escape spaces and other letters with %, and omit #"
    return ""
