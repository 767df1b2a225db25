"""Infotext, the format of prompt files and of the ``parameters`` chunk."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import format_infotext, parse_infotext
from fluxdrop.generate.parameters import GenerationParameters, PromptParameters
from fluxdrop.generate.samplers import SAMPLERS

LAST = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 512x768"


def refused(text: str) -> str:
    """The sentence with which *text* is refused."""
    with pytest.raises(FluxdropError) as caught:
        parse_infotext(text)
    assert caught.value.kind == "prompt"
    return str(caught.value)


def stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().split("\n"))


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
prompts = words.map(stripped).filter(
    lambda text: not any(line.startswith("Negative prompt:") for line in text.split("\n"))
)
all_parameters = st.builds(
    GenerationParameters,
    prompt=prompts.filter(bool),
    negative_prompt=prompts,
    steps=st.integers(1, 1000),
    guidance_scale=st.none() | st.floats(0, 100).map(abs),
    seed=st.integers(0, 2**64 - 1),
    width=st.integers(1, 1024).map(lambda n: 8 * n),
    height=st.integers(1, 1024).map(lambda n: 8 * n),
    sampler=st.sampled_from(list(SAMPLERS)) | words.filter(bool),
)


@given(all_parameters, words)
def test_round_trip(made_with: GenerationParameters, model: str) -> None:
    """Parameters that are formatted and parsed are the same, whatever is in prompts and names."""
    parameters, warnings = parse_infotext(format_infotext(made_with, model=model))

    expected = PromptParameters(**msgspec.structs.asdict(made_with), pipeline=model or None)
    assert (expected, []) == (parameters, warnings)


def test_whole_example() -> None:
    """Prompts over several lines and the last line's values each reach their field."""
    text = f"a castle\non a hill\nNegative prompt: fog,\nrain\n{LAST}"

    parameters, warnings = parse_infotext(text)

    expected = PromptParameters(
        prompt="a castle\non a hill",
        negative_prompt="fog,\nrain",
        steps=20,
        sampler="Euler a",
        guidance_scale=7.0,
        seed=42,
        width=512,
        height=768,
    )
    assert (expected, []) == (parameters, warnings)


@pytest.mark.parametrize(
    "text",
    [
        "a cat",
        "a cat: sleeping, style: ink",
        "(red hair:1.3), (blue eyes:1.2), (a smile:0.8), (a hat:1.1)",
        "a cat\n---\na dog",
    ],
)
def test_prompt_only(text: str) -> None:
    """A text without a line of parameters is a prompt, also with weights in brackets."""
    assert (PromptParameters(prompt=text), []) == parse_infotext(text)


def test_steps_alone() -> None:
    """A last line that begins with Steps holds parameters, however few."""
    assert (PromptParameters(prompt="a cat", steps=8), []) == parse_infotext("a cat\nSteps: 8")


def test_negative_prompt_comes_last() -> None:
    """A last line that begins with Negative prompt is one, though it has three pairs."""
    parameters, _ = parse_infotext("a cat\nNegative prompt: text: big, font: bad, tone: dark")

    assert "text: big, font: bad, tone: dark" == parameters.negative_prompt


def test_line_ends_and_mark() -> None:
    """A byte order mark and line ends of Windows are not part of the prompt."""
    parameters, _ = parse_infotext(f"\ufeffa cat\r\nNegative prompt: fog\r\n{LAST}\r\n")

    assert ("a cat", "fog", 42) == (parameters.prompt, parameters.negative_prompt, parameters.seed)


def test_quoted_values() -> None:
    """Commas, colons, quotes and line feeds in a quoted value do not divide the line."""
    line = (
        r'Steps: 9, Model: "a, b: \"c\"", Lora hashes: "one: 1f, two: 2e",'
        r' Wildcard prompt: "red,\nSeed: 1", Seed: 5'
    )

    parameters, warnings = parse_infotext(f"a cat\n{line}")

    assert ('a, b: "c"', 5, 9) == (parameters.pipeline, parameters.seed, parameters.steps)
    assert [
        "Not used of the parameters: Lora hashes: one: 1f, two: 2e, Wildcard prompt: red,\nSeed: 1."
    ] == warnings


def test_unknown_keys_are_named() -> None:
    """Keys that are not used, and what is no pair at all, are in the warning."""
    _, warnings = parse_infotext(f"a cat\n{LAST}, Clip skip: 2, oops, Version: v1.10.1")

    assert ["Not used of the parameters: Clip skip: 2, Version: v1.10.1, oops."] == warnings


def test_keys_in_any_case() -> None:
    """Keys that a person typed are known in any case."""
    parameters, warnings = parse_infotext("a cat\nSteps: 8, cfg scale: 2.5, seed: 7")

    assert (8, 2.5, 7, []) == (
        parameters.steps,
        parameters.guidance_scale,
        parameters.seed,
        warnings,
    )


@pytest.mark.parametrize(
    ("schedule", "sampler"),
    [("Karras", "DPM++ 2M Karras"), ("Automatic", "DPM++ 2M"), ("Uniform", "DPM++ 2M")],
)
def test_schedule_type(schedule: str, sampler: str) -> None:
    """A schedule type, as stable-diffusion-webui 1.9 and later write it, is part of the sampler."""
    parameters, warnings = parse_infotext(
        f"a cat\nSteps: 20, Sampler: DPM++ 2M, Schedule type: {schedule}, Seed: 1"
    )

    assert (sampler, []) == (parameters.sampler, warnings)


@pytest.mark.parametrize("text", ["", " \n\t\n", LAST, f"Negative prompt: fog\n{LAST}"])
def test_empty_prompt(text: str) -> None:
    """A text without a prompt is refused."""
    assert refused(text).startswith("The prompt is empty.")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Steps: 0", "Steps is 0; must be 1 to 1000."),
        ("Steps: many, CFG scale: 3, Seed: 1", "Steps is 'many', not a whole number: 1 to 1000."),
        ("Steps: 8, CFG scale: nan", "CFG scale is nan; must be 0 to 100."),
        ("Steps: 8, CFG scale: -1", "CFG scale is -1.0; must be 0 to 100."),
        ("Steps: 8, CFG scale: x", "CFG scale is 'x', not a number: 0 to 100."),
        ("Steps: 8, Seed: -2", f"Seed is -2; must be 0 to {2**64 - 1}."),
        (
            "Steps: 8, Size: 500x512",
            "Size (width) is 500; must be 8 to 8192 in steps of 8.",
        ),
        (
            "Steps: 8, Size: 512x9000",
            "Size (height) is 9000; must be 8 to 8192 in steps of 8.",
        ),
        (
            "Steps: 8, Size: big",
            "Size is 'big', not WIDTHxHEIGHT with both 8 to 8192 in steps of 8.",
        ),
        ("Steps: 8, Batch size: 101", "Batch size is 101; must be 1 to 100."),
        ("Steps: 8, Batch size: two", "Batch size is two; must be 1 to 100."),
    ],
)
def test_impossible_values(line: str, sentence: str) -> None:
    """An impossible value is refused with its key, itself and what is possible."""
    assert sentence == refused(f"a cat\n{line}")


def test_batch_of_one() -> None:
    """Batch size 1 is accepted silently."""
    assert [] == parse_infotext("a cat\nSteps: 8, Batch size: 1")[1]


def test_long_line() -> None:
    """A line of 64 KiB without a comma or colon is read in well under a second."""
    started = time.monotonic()

    parse_infotext("word " * 13_000)

    assert time.monotonic() - started < 0.5
