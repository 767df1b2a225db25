"""Which lines of a prompt hold parameters."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import parse_infotext

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 3, Seed: 42, Size: 64x64"


@pytest.mark.parametrize(
    "text",
    [
        "Subject: a red circle, Background: white, Style: flat",
        "a poster, title: sunrise, subtitle: the end, artist: unknown",
        "a poster\nTitle: sunrise, Subtitle: the end, Artist: unknown",
        "Camera: 35mm, Lens: f/1.8, Film: Portra, Light: dusk",
        "Note: one\nAnother: two\nThird: three",
    ],
)
def test_descriptions(text: str) -> None:
    """Lines of pairs without a key that is known are the prompt."""
    parameters, warnings = parse_infotext(text)

    assert (text, []) == (parameters.prompt, warnings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red circle\nSeed: 42", {"seed": 42}),
        ("a red circle\nseed: 42", {"seed": 42}),
        ("a red circle\r\nSeed: 42\r\n", {"seed": 42}),
        ("a red circle\nSize: 64x64", {"width": 64, "height": 64}),
        ("a red circle\nSize: 64 \u00d7 48", {"width": 64, "height": 48}),
        ("a red circle\nWidth: 64, Height: 48", {"width": 64, "height": 48}),
        ("a red circle\nModel: shapes-diffusion", {"pipeline": "shapes-diffusion"}),
        ("a red circle\nSampler: dpmpp_2m_karras", {"sampler": "DPM++ 2M Karras"}),
        ("a red circle\nSampler: DPM++ 2M, Schedule type: karras", {"sampler": "DPM++ 2M Karras"}),
        ("a red circle\nSeed: 42\nSteps: 20\nCFG: 3", {"seed": 42, "steps": 20}),
        ("a red circle\n\nSeed: 42\n\nSteps: 20", {"seed": 42, "steps": 20}),
        ("a red circle\nSeed: 42, Clip skip: 2", {"seed": 42}),
        ("a red circle\nModel hash: 1f, Seed: 42, Version: 2", {"seed": 42}),
        ("a red circle\nSteps: 20.0, Seed: 42.0", {"steps": 20, "seed": 42}),
        ("a red circle\nSteps: 20, CFG scale: 3,5, Seed: 42", {"guidance_scale": 3.5, "seed": 42}),
        ("a red circle\nCFG scale: 3,5", {"guidance_scale": 3.5}),
        ("a red circle\nSeed\uff1a42\uff0cSteps\uff1a20", {"seed": 42, "steps": 20}),
        ("a red circle\n**Seed:** 42", {"seed": 42}),
        ("a red circle\n**Seed**: 42, **Steps**: 20", {"seed": 42, "steps": 20}),
        ("a red circle\ncfg_scale: 3", {"guidance_scale": 3}),
        ("a red circle\nnum_inference_steps: 5", {"steps": 5}),
        ("a red circle\nResolution: 64x128", {"width": 64, "height": 128}),
        ("a red circle\nClip skip: 2\nSeed: 42", {"seed": 42}),
        ("a red circle\nSize: 64 x 48", {"width": 64, "height": 48}),
    ],
)
def test_few_parameters(text: str, expected: dict[str, Any]) -> None:
    """One known parameter on the last line is enough, and several last lines count."""
    parameters, _warnings = parse_infotext(text)

    assert ("a red circle", expected) == (
        parameters.prompt,
        {key: getattr(parameters, key) for key in expected},
    )


@pytest.mark.parametrize("between", ["", "Negative prompt: blurry\n"])
def test_lines_below_the_parameters(between: str) -> None:
    """What follows the parameters is no part of any prompt, and is named in a warning."""
    below = "Template: a {red|blue} circle\nNegative Template: blurry"
    parameters, warnings = parse_infotext(f"a red circle\n{between}{LINE}\n{below}")

    assert ("a red circle", 42, 20, "Euler a") == (
        parameters.prompt,
        parameters.seed,
        parameters.steps,
        parameters.sampler,
    )
    assert between.removeprefix("Negative prompt: ").strip() == parameters.negative_prompt
    assert [
        "Not used, as it follows the parameters:"
        " Template: a {red|blue} circle / Negative Template: blurry"
    ] == warnings


@pytest.mark.parametrize("line", [LINE, "Seed: 42"])
def test_negative_prompt_below(line: str) -> None:
    """A negative prompt counts below the parameters, too."""
    parameters, warnings = parse_infotext(f"a red circle\n{line}\nnegative prompt: blurry")

    assert ("a red circle", "blurry", 42, []) == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.seed,
        warnings,
    )


@pytest.mark.parametrize(
    "key",
    [
        *("negative_prompt:", "Negative prompts:", "Negative-prompt:", "NEGATIVE PROMPT :"),
        *("Negative prompt\uff1a", "**Negative prompt:**", "Negativer Prompt:"),
        *("Prompt n\u00e9gatif:", "\u53cd\u5411\u63d0\u793a\u8bcd:"),
    ],
)
def test_spellings_of_the_negative_prompt(key: str) -> None:
    """The negative prompt's key is known in other spellings and languages; it is never drawn."""
    parameters, warnings = parse_infotext(f"a red circle\n{key} blurry\nSeed: 42")

    assert ("a red circle", "blurry", 42, []) == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.seed,
        warnings,
    )


@pytest.mark.parametrize(
    "text",
    [
        "prompt: a red circle\nnegative_prompt: blurry\nsteps: 20\nseed: 42",
        "Prompt: a red circle\nsteps: 20\nseed: 42\nnegative_prompt: blurry\n",
        "steps: 20\nprompt: a red circle\nseed: 42\nnegative_prompt: blurry\n",
        "negative_prompt: blurry\nsteps: 20\nprompt: a red circle\nseed: 42",
        "prompt: \"a red circle\"\nnegative_prompt: 'blurry'\nsteps: 20\nseed: 42",
        "prompt: |\n  a red circle\nnegative_prompt: blurry\nsteps: 20\nseed: 42",
    ],
)
def test_every_line_with_its_key(text: str) -> None:
    """Where other keys follow, the key of the prompt is none of its words."""
    parameters, warnings = parse_infotext(text)

    assert ("a red circle", "blurry", 20, 42, []) == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.steps,
        parameters.seed,
        warnings,
    )


def test_key_of_the_prompt_alone() -> None:
    """A prompt that begins with the key alone may mean it; a warning says that it is drawn."""
    parameters, warnings = parse_infotext("Prompt: a red circle")

    assert "Prompt: a red circle" == parameters.prompt
    assert ["Drawn as a part of the prompt: Prompt:"] == warnings


def test_seed_that_is_said_to_be_random() -> None:
    """A seed of -1 is left open, and no default replaces it."""
    parameters, _warnings = parse_infotext("a circle\nSeed: -1.0")

    assert (None, True) == (parameters.seed, parameters.random_seed)


def test_second_prompt_without_dashes() -> None:
    """A second prompt that is not divided off is not mixed into the first one."""
    parameters, warnings = parse_infotext(f"a cat\n{LINE}\na dog\n{LINE}")

    assert ("a cat", 42) == (parameters.prompt, parameters.seed)
    assert [f"Not used, as it follows the parameters: a dog / {LINE}"] == warnings


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a red circle\nSeed: 42\non white", "Seed: 42"),
        ("a red circle, Seed: 42", "a red circle, Seed: 42"),
        ("a red circle\nSize: large", "Size: large"),
        ("a red circle\n- Seed: 42", "- Seed: 42"),
        ("a red circle\nseed=42", "seed=42"),
        ("a red circle\nSeed: 42 (lucky)", "Seed: 42 (lucky)"),
        ("a red circle\nNegative: blurry", "Negative: blurry"),
        (f"{LINE}\na red circle", LINE),
        ("a red circle\nSeeds: 42", "Seeds: 42"),
        ("a red circle\n*Seed:* 42", "*Seed:* 42"),
        ("a red circle\nSeed 42", "Seed 42"),
        ("a red circle\nSize = 64x64", "Size = 64x64"),
        ("a red circle\nNegative prompt = blurry", "Negative prompt = blurry"),
        ("a red circle\nNegative prompt (new): blurry", "Negative prompt (new): blurry"),
        ("a red circle\nNegatives: blurry", "Negatives: blurry"),
        ("stairs\nSteps: mossy", "Steps: mossy"),
        ("stairs\nSteps: 3, leading to a temple", "Steps: 3, leading to a temple"),
        ("a vintage car\nModel: T", "Model: T"),
        ("Subject: a circle, Size: 64x64", "Subject: a circle, Size: 64x64"),
        ("Model: clay, Colour: red, Style: flat", "Model: clay, Colour: red, Style: flat"),
    ],
)
def test_doubtful_lines(text: str, line: str) -> None:
    """What looks like parameters, but stands where none are read, is never drawn without a word."""
    parameters, warnings = parse_infotext(text)

    assert text == parameters.prompt
    assert [f"Taken as a part of the prompt, not as parameters: {line}"] == warnings


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Seed: 4x2", "Seed is '4x2', not a whole number"),
        ("Seed: 18446744073709551616", "Seed is 18446744073709551616; must be 0 to"),
        ("Steps: 20.5, Seed: 1", "Steps is '20.5', not a whole number"),
        ("Seed: 1,000", "Seed is '1,000', not a whole number"),
    ],
)
def test_impossible_values(line: str, sentence: str) -> None:
    """A number that cannot be meant as written is refused."""
    with pytest.raises(FluxdropError) as caught:
        parse_infotext(f"a red circle\n{line}")

    assert str(caught.value).startswith(sentence)


pieces = st.sampled_from(
    [
        "Seed: 1",
        "Steps: 2",
        ", ",
        "\n",
        "Negative prompt: x",
        "a: b",
        '"',
        "\\",
        "Size: 8x8",
        " ",
        ":",
        "---",
    ]
)


@given(st.lists(pieces | st.text(max_size=5), max_size=30).map("".join))
def test_any_text(text: str) -> None:
    """Any text is parsed, or refused as a prompt."""
    with contextlib.suppress(FluxdropError):
        parse_infotext(text)
