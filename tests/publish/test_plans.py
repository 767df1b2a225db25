"""Plans that are read from a file which somebody else may have made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fluxdrop.publish.plans import Plan, Plans

GOOD = Plan(links=[(b"input=a.png", "outputs/sub/a.png")], record="outputs/sub/a.json")
KEPT = Plan(
    links=[(b"input=a.mp4", ".fluxdrop/kept/a.mp4")], record="outputs/failed/a.mp4.error.json"
)
ODD = [
    Plan(links=[], record="nofolder"),
    Plan(links=[], record=".fluxdrop/model"),
    Plan(links=[], record=".fluxdrop/kept/a.json"),
    Plan(links=[(b"input=a.png", ".fluxdrop/model")], record="outputs/a.json"),
    Plan(links=[], record="inbox/a.json"),
    Plan(links=[], record="/etc/a.json"),
    Plan(links=[], record="outputs/../a.json"),
    Plan(links=[], record="outputs//a.json"),
    Plan(links=[], record="outputs/a\0.json"),
    Plan(links=[(b"input=a.png", "../escaped.png")], record="outputs/a.json"),
    Plan(links=[(b"/etc/passwd", "outputs/a.png")], record="outputs/a.json"),
    Plan(links=[(b"../other/input=a.png", "outputs/a.png")], record="outputs/a.json"),
]


def line(job: str, plan: Plan) -> bytes:
    return msgspec.json.encode({"job": job, "plan": plan}) + b"\n"


@pytest.mark.parametrize("odd", ODD)
def test_odd_plan(tmp_path: Path, odd: Plan) -> None:
    """A plan that gives other names than those of results, or to other files than the job's, is none; the others
    are read, and more can be decided."""
    path = tmp_path / "plans.jsonl"
    path.write_bytes(line("a", odd) + line("b", GOOD))
    plans = Plans(path, ["a", "b"])
    plans.decide({"c": GOOD})
    again = Plans(path, ["a", "b", "c"])

    assert [None, GOOD, GOOD] == [again.get(job) for job in "abc"]


def test_plan_that_keeps(tmp_path: Path) -> None:
    """An input that outputs/ cannot take is planned to be kept beside it, and still is after a kill."""
    Plans(tmp_path / "plans.jsonl", ["a"]).decide({"a": KEPT})

    assert KEPT == Plans(tmp_path / "plans.jsonl", ["a"]).get("a")


@pytest.mark.parametrize("torn", [b'{"job":"\xff"}\n', b"[" * 100_000 + b"\n", b'{"job":\n'])
def test_line_that_is_none(tmp_path: Path, torn: bytes) -> None:
    """Whatever is in the file, what comes before holds, and more can be decided."""
    path = tmp_path / "plans.jsonl"
    path.write_bytes(line("a", GOOD) + torn)
    Plans(path, ["a", "b"]).decide({"b": GOOD})
    again = Plans(path, ["a", "b"])

    assert [GOOD, GOOD] == [again.get(job) for job in "ab"]
