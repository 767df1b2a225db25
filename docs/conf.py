"""The docs site's settings; `make docs` builds it into site/.

Sphinx with MyST takes the Markdown of this folder as it is, and is maintained (docs/dependencies.md has the other
choice).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "daemon")]

from tools import docs_pages  # noqa: E402 - the line above finds it

docs_pages.write(ROOT, Path(__file__).parent / "reference")

project = "fluxdrop"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
html_theme = "furo"
html_title = "fluxdrop"
html_copy_source = False
html_show_copyright = False

myst_fence_as_directive = ["mermaid"]
# Links such as results.md#part lead to headings, as they do on a forge.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
# The site is built without them: no page needs what they compute.
autodoc_mock_imports = ["diffusers", "juliacall", "peft", "torch", "transformers"]
# Docstrings have names between single backquotes.
default_role = "code"
# Annotations name a class by its last name alone, which two modules may have.
suppress_warnings = ["ref.python"]


def escape_prefixes(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Have a name such as FLUXDROP_ in a docstring not taken for a reference, in place."""
    lines[:] = [re.sub(r"(?<=[A-Z])_(?=\W)", r"\\_", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Register what Sphinx is to call."""
    app.connect("autodoc-process-docstring", escape_prefixes)
