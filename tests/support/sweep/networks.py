"""Each network of the sweep: what makes it, and what becomes of its folders."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fluxdrop.files.layout import Root
from support.sweep import timm_models, transformers_models
from support.sweep.adding import Result, add, compared
from support.sweep.made import Made
from support.sweep.photographs import copy_pictures

Maker = Callable[[Path, Sequence[Path]], Made]
"""Writes a network below a folder, and asks its library about pictures."""

NEEDED = ("onnxscript", "safetensors", "skimage", "timm", "torch", "torchvision", "transformers")
"""The packages without which nothing can be made."""


def missing() -> list[str]:
    """Which of them are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def makers(opsets: Sequence[int]) -> dict[tuple[str, str], Maker]:
    """By library and name: what makes a network below a folder."""
    found: dict[tuple[str, str], Maker] = {
        ("timm", name): partial(timm_models.make, name, opsets)
        for name in timm_models.ARCHITECTURES
    }
    return found | {
        ("transformers", name): partial(transformers_models.make, name)
        for name in transformers_models.MODELS
    }


def results(
    library: str,
    name: str,
    make: Maker,
    pictures: Sequence[Path],
    scratch: Path,
) -> Iterator[Result]:
    """Make a network and try each of its folders in a root of their own."""
    root = Root(scratch / "root")
    root.create()
    files = copy_pictures(pictures, scratch)
    try:
        # The libraries and torch's exporter warn of much.
        with warnings.catch_warnings(action="ignore"):
            made = make(scratch, files)
    # Any exception of a library is why there is nothing to try.
    except Exception as error:
        told = f"cannot be made: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Result(library=library, name=name, form="", problem=told)
        return
    for form, why in made.unmade.items():
        yield Result(library=library, name=name, form=form, problem=f"cannot be exported: {why}")
    for form, folder in made.folders.items():
        copy_pictures(pictures, folder)
        answer = add(root, folder)
        if isinstance(answer, str):
            yield Result(library=library, name=name, form=form, problem=answer)
        else:
            yield Result(library=library, name=name, form=form, **compared(answer, made.reference))
        shutil.rmtree(folder)
