"""What the settings allow one prompt file to ask for, through a real daemon."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.bounds import check_bounds
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.prompt_file import read_prompts
from support.daemons import failures, fluxdrop, results
from support.needs import needs_generation

pytestmark = pytest.mark.slow

SHORT = "Steps: 2, CFG scale: 3, Size: 64x64, Seed: 7"


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (" AND ".join(["a cat"] * 10), ""),
        (" AND ".join(["a cat"] * 11), "11 parts, divided by AND"),
        (" BREAK ".join(["a cat"] * 40), ""),
        (" BREAK ".join(["a cat"] * 41), "41 parts, divided by BREAK"),
        (" AND ".join([" BREAK ".join(["a cat"] * 6)] * 7), "42 parts, divided by BREAK"),
    ],
)
def test_parts(prompt: str, says: str) -> None:
    """A prompt cannot ask for more work than a few pictures by the parts that it is divided into."""
    refused = pytest.raises(FluxdropError, match=says) if says else nullcontext()
    with refused:
        check_bounds(PromptParameters(prompt=prompt), Settings())
    if "AND" not in prompt:
        with refused:
            check_bounds(PromptParameters(prompt="a", negative_prompt=prompt), Settings())


@pytest.mark.parametrize(
    ("asked", "setting"),
    [
        ({"steps": 151}, "max_steps"),
        ({"width": 2048, "height": 2056}, "max_generated_pixels"),
        ({"steps": 150, "width": 8192, "height": 8192}, "max_generated_pixels"),
        ({"steps": 150, "width": 2048, "height": 2048}, ""),
        ({"steps": 150, "width": 8192, "height": 512}, ""),
        ({}, ""),
    ],
)
def test_defaults(asked: dict[str, int], setting: str) -> None:
    """What people use is possible as fluxdrop comes; more is refused with the setting's name."""
    parameters = PromptParameters(prompt="a cat", **asked)  # type: ignore[arg-type]
    refused = pytest.raises(FluxdropError) if setting else nullcontext()
    with refused as caught:
        check_bounds(parameters, Settings())

    if caught is not None:
        assert ("prompt", True) == (caught.value.kind, setting in caught.value.hint)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Steps: 5000", "Steps is 5000; must be 1 to 150."),
        ("Steps: 0", "Steps is 0; must be 1 to 150."),
        ("Steps: many, Seed: 7", "Steps is 'many', not a whole number: 1 to 150."),
        ("Steps: 8, Batch size: 0", "Batch size is 0; must be 1 to 64."),
        ("Steps: 8, Batch size: 500", "Batch size is 500; must be 1 to 64."),
    ],
)
def test_errors_name_the_limit_that_applies(line: str, said: str) -> None:
    """An error names the limit of the settings where that is lower than the format's."""
    with pytest.raises(FluxdropError) as caught:
        read_prompts(f"a cat\n{line}", 64, 150)
    with pytest.raises(FluxdropError) as by_command:
        read_prompts(f"a cat\n{line}")

    assert said == caught.value.message
    highest = "100" if "Batch" in line else "1000"
    assert (
        said.replace("150", highest).replace("to 64", f"to {highest}") == by_command.value.message
    )


def test_pictures_are_counted_early() -> None:
    """A file that asks for far too much is refused before all of it is made up in memory."""
    text = "\n---\n".join(["a cat\nSteps: 8, Batch size: 100"] * 1000)

    with pytest.raises(FluxdropError, match="asks for 100 pictures or more; at most 64 here"):
        read_prompts(text, 64)


def drop(root: Root, **files: str) -> None:
    for name, text in files.items():
        (root.inbox / f"{name}.txt").write_text(text)


def errors(root: Root) -> dict[str, tuple[str, str]]:
    """The setting that each failed file's error names, and which kind of error it is."""
    return {
        name: (record["error"]["hint"], record["error"]["kind"])
        for name, record in failures(root).items()
    }


def test_refused_files(root: Root) -> None:
    """Each bound refuses a file whole, before anything of it is made: the file lies untouched in
    outputs/failed/, once, and its error names the setting."""
    texts = {
        "pictures": "a cat\nSteps: 2, Batch size: 3, Seed: 1",
        "prompts": "\n---\n".join(["a cat"] * 3),
        "range": "a cat\nSteps: 6000",
        "steps": f"a dog\n---\na cat\n{SHORT.replace('2', '6', 1)}",
        "pixels": f"a cat\n{SHORT.replace('64x64', '128x64')}",
    }
    drop(root, **texts)
    bounds = {"max_pictures_per_prompt": 2, "max_steps": 5, "max_generated_pixels": 64 * 64}

    ran = fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime", **bounds)

    assert 1 == ran.returncode
    named = {
        "pictures": "max_pictures_per_prompt",
        "prompts": "max_pictures_per_prompt",
        "steps": "max_steps",
        "pixels": "max_generated_pixels",
    }
    found = errors(root)
    assert "must be 1 to 5." in failures(root)["range.txt.error.json"]["error"]["message"]
    assert {f"{name}.txt.error.json" for name in texts} == set(found)
    for name, setting in named.items():
        hint, kind = found[f"{name}.txt.error.json"]
        assert ("prompt", True) == (kind, setting in hint), hint
        assert texts[name] == (root.failed / f"{name}.txt").read_text()
    assert {} == results(root)


@needs_generation
def test_replay_of_what_was_allowed(root: Root) -> None:
    """What was made once and is not allowed any more is not made again: the replay fails and says why,
    also of one of several pictures, which itself is no more than one."""
    drop(root, cat=f"a red circle\n{SHORT}, Batch size: 2")
    run = ("run", "--root", root.path, "--once")
    fluxdrop(*run, engine="onnxruntime")
    for job in ("cat", "cat-2"):
        fluxdrop("replay", job, "--root", root.path)

    fluxdrop(*run, engine="onnxruntime", max_steps=1)
    refused = errors(root)
    fluxdrop("replay", "cat-2", "--root", root.path)
    fluxdrop(*run, engine="onnxruntime", max_pictures_per_prompt=1)

    assert {"cat.txt.error.json", "cat-2.txt.error.json"} == set(refused)
    assert ["prompt"] * 2 == [kind for _hint, kind in refused.values()]
    assert all("max_steps" in hint for hint, _kind in refused.values())
    assert {"cat.json", "cat-2.json", "cat-3.json"} == set(results(root))
