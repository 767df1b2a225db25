"""outputs/index.html itself: one template with its style and script inside, which changes with the
root's name and fluxdrop's version alone.

Its Content-Security-Policy knows the script and the style by their digests. What that script loads
is trusted with it ('strict-dynamic'); nothing that a name or a prompt could smuggle in ever runs.
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

PAGE = "index.html"

_OURS = b'<meta name="generator" content="fluxdrop'
_MOST_BYTES = 1 << 22
_SCRIPTS = ("data.js", "filter.js", "cards.js", "gallery.js")


def write_page(folders: Folders, title: str) -> None:
    """Make index.html of the *folders* below outputs/ the gallery's page.

    Raises FluxdropError when somebody else's file has the name.
    """
    wanted = render(title)
    try:
        with FileIO(durable.open_regular_fd(PAGE, os.O_RDONLY, folders.fd(""))) as file:
            found = durable.read_at_most(file, _MOST_BYTES)
    except FileNotFoundError:
        found = None
    except OSError:
        found = b""
    if found == wanted:
        return
    if found is not None and _OURS not in found:
        raise FluxdropError(
            f"outputs/{PAGE} is not the gallery's, so it is left alone",
            hint="Move it away to have a gallery, or switch that off with gallery = false.",
            kind="gallery",
        )
    making = folders.fd(GALLERY, make=True)
    durable.write_in(making, PAGE, wanted, sync=False, target=folders.fd(""))


def render(title: str) -> bytes:
    """The page for a root called *title*."""
    style = _source("gallery.css")
    script = "\n".join(["(() => {", '"use strict";', *map(_source, _SCRIPTS), "})();"])
    page = Template(_source(PAGE)).substitute(
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
