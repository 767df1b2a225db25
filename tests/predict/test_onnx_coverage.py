"""docs/onnx-coverage.md lists every operator, and what onnx's own node tests say of it."""

from __future__ import annotations

from pathlib import Path

import onnx

from support import onnx_nodes

PAGE = Path(__file__).parents[2] / "docs/onnx-coverage.md"


def test_every_operator_is_listed() -> None:
    """The page has each operator of ONNX's own domain among those that are passed, excluded or missing."""
    cells = [
        line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line[:1] == "|"
    ]
    names = {name.strip() for row in cells for name in row[0].split(",")}
    every = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    current = {name for name in every if not onnx.defs.get_schema(name).deprecated}

    assert set() == current - names - onnx_nodes.WITHOUT_CASES


def test_passed_everywhere() -> None:
    """The page has a count for plain layers, for Flux's models by fluxdrop's layers and for Flux itself, and each
    is that of all cases."""
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line[:1] == "|"]
    counted = {row[0].strip(): row[1:5] for row in rows if row[0].strip() in onnx_nodes.OPERATORS}

    assert set(onnx_nodes.OPERATORS) == counted.keys()
    for counts in counted.values():
        assert 1 == len({count.strip() for count in counts})
