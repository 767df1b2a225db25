"""The pages of the docs site that are made of the code, before Sphinx reads them (docs/conf.py).

`python/NAME.md` has the public modules of each package in daemon/fluxdrop/, which Sphinx's autodoc fills in;
`julia.md` has the docstrings of julia/src/. No page names a module by hand, so that one that moves takes its place in
the reference along. CHANGELOG.md, CONTRIBUTING.md and SECURITY.md become pages, too.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

# A docstring at the beginning of a line, and the line that it stands before.
_DOCSTRING = re.compile(r'^(?:"""\n([\s\S]*?)\n?"""|"((?:[^"\\\n]|\\.)+)")\n(\S.*)$', re.MULTILINE)
_REFERENCE = re.compile(r"\[(`[^`]+`)\]\(@ref[^)]*\)")
_OF_THE_ROOT = ("CHANGELOG", "CONTRIBUTING", "SECURITY")


def write(root: Path, target: Path) -> None:
    """Write the pages of the checkout *root* into the folder *target*, which holds nothing else after that."""
    shutil.rmtree(target, ignore_errors=True)
    pages = {
        f"python/{name}": text for name, text in python_pages(root / "daemon/fluxdrop").items()
    }
    pages["julia"] = julia_page(root / "julia/src")
    for name in _OF_THE_ROOT:
        # Their links, docs/x.md, are then those of a page in docs/.
        pages[name.lower()] = f"```{{include}} ../../{name}.md\n:relative-docs: docs/\n```\n"
    for name, text in pages.items():
        page = target / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)


def python_pages(package: Path) -> dict[str, str]:
    """The Markdown of the reference of *package*, by page: one for its own modules, and one for each package in it."""
    pages: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        below = path.relative_to(package)
        parts = [part for part in below.with_suffix("").parts if part != "__init__"]
        if any(part.startswith("_") for part in parts):
            continue
        page = below.parts[0] if len(below.parts) > 1 else package.name
        pages.setdefault(page, []).append(".".join([package.name, *parts]))
    return {page: _python_page(page, modules) for page, modules in pages.items()}


def _python_page(title: str, modules: list[str]) -> str:
    parts = [f"# {title}"]
    for module in modules:
        parts += [f"## {module}", f"```{{eval-rst}}\n.. automodule:: {module}\n```"]
    return "\n\n".join(parts) + "\n"


def julia_page(source: Path) -> str:
    """The Markdown of the docstrings of the Julia files below *source*, each under what it documents."""
    parts = ["# The Julia worker"]
    for path in sorted(source.rglob("*.jl")):
        documented = julia_docstrings(path.read_text())
        if documented:
            parts.append(f"## {path.relative_to(source)}")
        for definition, docstring in documented:
            parts += [f"### `{definition}`", _REFERENCE.sub(r"\1", docstring)]
    return "\n\n".join(parts) + "\n"


def julia_docstrings(text: str) -> list[tuple[str, str]]:
    """The docstrings of the Julia source *text*, each behind the head of the definition that it documents."""
    return [
        (_head(line), (long or short).replace('\\"', '"').strip("\n"))
        for long, short, line in _DOCSTRING.findall(text)
    ]


def _head(line: str) -> str:
    line = re.sub(r"^(?:@\w+ )*", "", line)
    line = re.sub(r"^(?:mutable struct|abstract type|struct|function|const|module) ", "", line)
    return re.split(r" =(?: |$)| where | *<:|;? end$", line, maxsplit=1)[0].strip()
