"""Modules that are imported at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxdrop.generate.late_modules import import_late

NAME = "late_parent.late"


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a submodule, which has one of its own."""
    (tmp_path / "late_parent" / "late").mkdir(parents=True)
    (tmp_path / "late_parent" / "__init__.py").touch()
    (tmp_path / "late_parent" / "late" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "late_parent" / "late" / "deep.py").write_text("depth = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("late_parent", NAME, f"{NAME}.deep"):
        sys.modules.pop(name, None)


def is_there() -> bool:
    """Whether the submodule itself is imported."""
    return "answer" in vars(sys.modules[NAME])


def test_first_use() -> None:
    """An import and a look at all modules do not load it; the first use of something in it does, for all."""
    import_late(NAME)
    imported = importlib.import_module(NAME)
    looked_at = [hasattr(module, "__file__") for module in sys.modules.values()]
    before = is_there()

    assert any(looked_at)
    assert not before
    assert 42 == imported.answer
    assert is_there()
    assert importlib.import_module(NAME).answer == imported.answer


def test_submodule() -> None:
    """A submodule of it is found, and loads it."""
    import_late(NAME)

    assert 3 == importlib.import_module(f"{NAME}.deep").depth
    assert is_there()


def test_imported_before() -> None:
    """What is imported already stays."""
    module = importlib.import_module(NAME)

    import_late(NAME)

    assert module is importlib.import_module(NAME)


def test_nothing_of_that_name() -> None:
    """What is not in it is an AttributeError, as of any module."""
    import_late(NAME)

    with pytest.raises(AttributeError, match="no attribute 'question'"):
        _ = importlib.import_module(NAME).question
