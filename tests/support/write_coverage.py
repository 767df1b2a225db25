"""Make docs/onnx-coverage.md of what tests/predict/test_onnx_nodes.py noted in the file named by FLUXDROP_COVERAGE.

PYTHONPATH=tests python -m support.write_coverage NOTES docs/onnx-coverage.md

Columns that NOTES has nothing of, such as those of Flux on a machine without it, are kept as they are in the page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx

from support import onnx_nodes
from support.onnx_nodes import EXCLUDED, cases

LAYERS = {
    "plain": "plain layers, without Flux",
    "fast": 'Flux {flux}: what `julia_backend = "auto"` serves on a CPU',
    "flux": "Flux {flux}: Flux's own layers",
}
"""The backends, each with what it is."""

TEXT = """\
# ONNX operators

Every operator of ONNX's own domain, by onnx {onnx}: those that pass onnx's own node tests on the worker, those that no
image classifier needs, and those that are missing. `make onnx-coverage` writes this page.

| column | what ran |
| --- | --- |
{columns}

A case is one of onnx's tests with one of its float32 inputs computed and the others constant, and one of its outputs
compared; each input and each output has its turn. float16 and float64 count as float32, which they become. The last
column counts onnx's tests that are left out, as they have no float32 input, or end in a type that a model in float32
has not: integers alone, bfloat16, float8, strings, sequences.

| operator | {names} | cases | excluded, and why | of other types |
| --- | {lines} | ---: | --- | ---: |
{rows}

{sums}
{failed}
The worker has these, too, of which onnx has no tests with a float32 input: {untested}.

## Excluded

| operators | why |
| --- | --- |
{excluded}

## Missing

A model with one of these is refused. The message names all of them, and says whether the engine onnxruntime runs the
model.

| operator | |
| --- | --- |
{missing}
"""


def main(notes: Path, page: Path) -> None:
    """Write *page* out of *notes*, and out of itself what they have nothing of."""
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    before = _cells(page)
    columns: dict[str, str] = {}
    passed: dict[str, dict[str, str]] = {}
    for backend, described in LAYERS.items():
        ours = [line for line in lines if line["backend"] == backend]
        if ours:
            what = described.format(flux=ours[0]["flux"])
            columns[backend] = f"| {backend} | Julia {ours[0]['julia']}, {what} |"
            passed[backend] = {
                line["operator"]: str(sum(not words for words in line["problems"].values()))
                for line in ours
            }
        elif backend in before:
            columns[backend] = f"| {backend} | {before[backend][1]} |"
            at = 1 + list(LAYERS).index(backend)
            passed[backend] = {name: row[at] for name, row in before.items() if len(row) == 7}
    totals = {name: len(found) for name, found in _tried().items()}
    page.write_text(
        TEXT.format(
            onnx=onnx.__version__,
            columns="\n".join(columns.values()),
            names=" | ".join(columns),
            lines=" | ".join(["---:"] * len(columns)),
            rows="\n".join(_rows(totals, passed)),
            sums="\n".join(_sums(totals, passed)),
            failed=_failed(lines),
            untested=", ".join(sorted(onnx_nodes.WITHOUT_CASES)),
            excluded="\n".join(_excluded()),
            missing="\n".join(
                f"| {name} | {words} |" for name, words in onnx_nodes.MISSING_OPERATORS.items()
            ),
        )
    )


def _cells(page: Path) -> dict[str, list[str]]:
    """The cells of each row of the page's tables, by the first of them."""
    text = page.read_text() if page.exists() else ""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [cell.strip() for cell in row] for row in rows}


def _tried() -> dict[str, list[str]]:
    """The names of the cases that are tried, by their operator."""
    return {
        operator: [case.name for case in found if case.name.partition("[")[0] not in EXCLUDED]
        for operator, found in cases().items()
    }


def _rows(totals: dict[str, int], passed: dict[str, dict[str, str]]) -> list[str]:
    names = onnx_nodes.names()
    rows = []
    for operator, total in totals.items():
        ours = {case.name.partition("[")[0] for case in cases()[operator]}
        counts = [found.get(operator, "") for found in passed.values()]
        excluded = "<br>".join(
            f"{name}: {EXCLUDED[name]}" for name in sorted(ours & EXCLUDED.keys())
        )
        others = len(names[operator] - ours) or ""
        rows.append(f"| {' | '.join([operator, *counts, str(total), excluded, str(others)])} |")
    return rows


def _sums(totals: dict[str, int], passed: dict[str, dict[str, str]]) -> list[str]:
    whole = sum(totals.values())
    return [
        f"- {backend}: {sum(int(count or 0) for count in found.values())} of {whole} cases passed."
        for backend, found in passed.items()
    ]


def _failed(lines: list[dict[str, Any]]) -> str:
    failed = [
        f"- {line['backend']}, {name}: {words}\n"
        for line in lines
        for name, words in line["problems"].items()
        if words
    ]
    return "\n" + "".join(failed) if failed else ""


def _excluded() -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, words in onnx_nodes.EXCLUDED_OPERATORS.items():
        reasons.setdefault(words, []).append(name)
    return [f"| {', '.join(names)} | {words} |" for words, names in reasons.items()]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
