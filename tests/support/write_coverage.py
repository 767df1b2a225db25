"""Make docs/onnx-coverage.md of what tests/predict/test_onnx_nodes.py noted in the file named by FLUXDROP_COVERAGE.

PYTHONPATH=tests python -m support.write_coverage NOTES docs/onnx-coverage.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx

from support import onnx_nodes
from support.onnx_nodes import EXCLUDED, cases

TEXT = """\
# ONNX operators

onnx {onnx}'s own node tests, run on the worker: Julia {julia}, {layers}. `make onnx-coverage` writes this page.

A case is one of onnx's tests with one of its float32 inputs computed and the others constant, and one of its outputs
compared; each input and each output has its turn. float16 and float64 count as float32, which they become. The last
column counts onnx's tests that are left out, as they have no float32 input, or end in a type that a model in float32
has not: integers alone, bfloat16, float8, strings, sequences.

| operator | passed | cases | excluded, and why | of other types |
| --- | ---: | ---: | --- | ---: |
{rows}

{passed} of {total} cases passed.
{failed}"""


def main(notes: Path, page: Path) -> None:
    """Write *page* out of *notes*."""
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    problems = {line["operator"]: line["problems"] for line in lines}
    names = onnx_nodes.names()
    rows = []
    for operator in onnx_nodes.OPERATORS:
        ours = {case.name.partition("[")[0] for case in cases()[operator]}
        found = problems[operator]
        passed = sum(not words for words in found.values())
        excluded = [f"{name}: {EXCLUDED[name]}" for name in sorted(ours & EXCLUDED.keys())]
        others = len(names[operator] - ours)
        rows.append(
            f"| {operator} | {passed} | {len(found)} | {'<br>'.join(excluded)} | {others or ''} |"
        )
    results = [(name, words) for found in problems.values() for name, words in found.items()]
    failures = [f"- {name}: {words}" for name, words in results if words]
    flux = lines[0]["flux"]
    page.write_text(
        TEXT.format(
            onnx=onnx.__version__,
            julia=lines[0]["julia"],
            layers=f"Flux {flux}" if flux else "plain layers",
            rows="\n".join(rows),
            passed=len(results) - len(failures),
            total=len(results),
            failed="".join(f"\n{failure}" for failure in failures) + "\n" if failures else "",
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
