"""The page outputs/index.html: one template, with its style and scripts inside.

It changes only with the root's name and fluxdrop's version. Its Content-Security-Policy allows the
script and the style by their digests, and what that script loads ('strict-dynamic'). A script that
a name or a prompt contains never runs.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
from importlib.resources import files
from io import FileIO
from string import Template

from fluxdrop import __version__
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.folders import Folders
from fluxdrop.files.layout import GALLERY

INDEX_NAME = "index.html"

_GENERATOR_TAG = b'<meta name="generator" content="fluxdrop'
_MAX_BYTES = 1 << 22
_SCRIPTS = ("data.js", "filter.js", "cards.js", "gallery.js")


def write_page(folders: Folders, title: str) -> None:
    """Write index.html, unless it is up to date.

    Args:
        folders: The folders below outputs/.
        title: The title of the page, which is the root's name.

    Raises:
        FluxdropError: The name is taken by a file that is not the gallery's.
        OSError: The file cannot be written.
    """
    content = render(title)
    try:
        with FileIO(durable.open_regular_fd(INDEX_NAME, os.O_RDONLY, folders.fd(""))) as file:
            found = durable.read_at_most(file, _MAX_BYTES)
    except FileNotFoundError:
        found = None
    except OSError:
        found = b""
    if found == content:
        return
    if found is not None and _GENERATOR_TAG not in found:
        raise FluxdropError(
            f"outputs/{INDEX_NAME} is not the gallery's, so it is left alone",
            hint="Move it away to have a gallery, or switch that off with gallery = false.",
            kind="gallery",
        )
    making = folders.fd(GALLERY, make=True)
    durable.write_in(making, INDEX_NAME, content, sync=False, target=folders.fd(""))


def render(title: str) -> bytes:
    """Return the page for a root called *title*."""
    style = _source("gallery.css")
    script = "\n".join(["(() => {", '"use strict";', *map(_source, _SCRIPTS), "})();"])
    page = Template(_source(INDEX_NAME)).substitute(
        title=html.escape(title),
        version=html.escape(__version__),
        style=style,
        style_digest=_digest(style),
        script=script,
        script_digest=_digest(script),
    )
    return page.encode()


def _source(name: str) -> str:
    return (files("fluxdrop.gallery") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
