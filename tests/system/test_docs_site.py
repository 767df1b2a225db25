"""What docs and settings name is there: links, files, targets of make, modules and docstrings of the reference.

`make docs` builds the site itself, which is a check of its own; these are the ones that need no Sphinx.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tools.docs_pages import julia_docstrings, julia_page, python_pages

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
MAKEFILE = (ROOT / "Makefile").read_text()

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of *page*, as forges make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@by_name
def test_links(page: Path) -> None:
    """Every link of a page that leads into the repository leads to a file, and to a heading of it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert [] == broken


def test_every_page_is_on_the_site() -> None:
    """docs/index.md lists each page of docs/ but itself."""
    listed = (ROOT / "docs/index.md").read_text().splitlines()
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}

    assert set() == pages - set(listed)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_named_files(page: str) -> None:
    """Every file that CONTRIBUTING.md and SECURITY.md name by its path is there."""
    named = re.findall(r"`((?:daemon|docs|julia|tests)/[\w./-]+\w)`", (ROOT / page).read_text())

    assert [] == [path for path in named if not (ROOT / path).exists()]


def test_named_identifiers() -> None:
    """Every name with an underscore that CONTRIBUTING.md gives as code is a name in the code."""
    named = re.findall(
        r"`([A-Za-z_]*[a-zA-Z]_[a-zA-Z]\w*|_\w+)`", (ROOT / "CONTRIBUTING.md").read_text()
    )
    sources = [
        path.read_text() for folder in ("daemon", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    known = {word for source in sources for word in re.findall(r"\w+", source)}

    assert named
    assert set() == {*named} - known


@pytest.mark.parametrize("page", [".github/workflows/ci.yml", "CONTRIBUTING.md", "README.md"])
def test_targets(page: str) -> None:
    """Every target of make that is named is in the Makefile."""
    named = re.findall(r"(?:run: |`|^    )make ([\w-]+)", (ROOT / page).read_text(), re.MULTILINE)

    assert named
    assert [] == [name for name in named if not re.search(rf"(?m)^{name}:", MAKEFILE)]


def test_python_reference() -> None:
    """The reference has every public module once, with those of a package on its page."""
    pages = python_pages(ROOT / "daemon/fluxdrop")
    named = re.findall(r"automodule:: ([\w.]+)", "".join(pages.values()))

    assert "automodule:: fluxdrop.predict.compiler.lower\n" in pages["predict"]
    assert len(named) == len(set(named))
    assert {"fluxdrop", "fluxdrop.cli"} <= set(named)
    assert not [module for module in named if re.search(r"\._", module)]


def test_julia_docstrings() -> None:
    """Of Julia sources the docstrings of every form are taken, with the head of what they document."""
    text = '''
"A `Clamp` of \\"two\\"."
struct Clamp <: Function
    "Not a docstring of the module's."
    low::Float32
end

"""
    grow(x) -> Int

Throws [`InputError`](@ref).
"""
function grow(x::Vector{T}) where {T}
end

# "Neither is this."
const A = "nor"
"Short."
@inline half(x) = x / 2
'''

    assert [
        ("Clamp", 'A `Clamp` of "two".'),
        ("grow(x::Vector{T})", "    grow(x) -> Int\n\nThrows [`InputError`](@ref)."),
        ("half(x)", "Short."),
    ] == julia_docstrings(text)


def test_julia_reference() -> None:
    """The page of the worker has the files' docstrings in code's order, and no link that leads nowhere."""
    page = julia_page(ROOT / "julia/src")

    assert page.index("## backend.jl") < page.index("### `Backend`") < page.index("## graph.jl")
    assert "@ref" not in page


def test_nothing_generated_is_kept() -> None:
    """What `make docs` and `make release` write is ignored by git."""
    written = ["site/index.html", "docs/reference/julia.md", "dist/fluxdrop.whl"]
    found = subprocess.run(
        ["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode == 128:
        pytest.skip("not in a checkout of git")

    assert written == found.stdout.split()
