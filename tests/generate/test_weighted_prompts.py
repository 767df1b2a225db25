"""Pictures from weighted prompts."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from fluxdrop.generate.generator import Generator
from fluxdrop.generate.parameters import PromptParameters, WeightedText
from support.generators import generate
from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]

PLAIN = PromptParameters(prompt="a large red circle on a white background", seed=3, steps=4)


def with_prompt(prompt: str, **values: object) -> PromptParameters:
    return msgspec.structs.replace(PLAIN, prompt=prompt, **values)


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int16)


@pytest.fixture(scope="module")
def facts() -> dict[str, object]:
    """What a process with torch computed of the encodings; the formula is webui's own, written out."""
    code = textwrap.dedent(
        r"""
        import json
        import torch
        from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
        from fluxdrop.generate import prompting, sources
        from fluxdrop.generate.prompt_weights import parse_weights
        from fluxdrop.generate.weighted_encoding import WeightedEncoder

        folder = sources.find("shapes-diffusion").location
        pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
        tokenizer = pipe.tokenizer
        encoder = WeightedEncoder(pipe)

        def encoded(prompt):
            chunks = encoder.encode(parse_weights(prompt).parts[0], whole=True)
            return torch.cat([chunk["prompt_embeds"] for chunk in chunks], dim=1)

        def webui(*chunks):
            made = []
            for fragments in chunks:
                ids, weights = [], []
                for text, weight in fragments:
                    tokens = tokenizer(text, add_special_tokens=False).input_ids
                    ids, weights = ids + tokens, weights + [weight] * len(tokens)
                room = tokenizer.model_max_length - 2 - len(ids)
                ids = [tokenizer.bos_token_id, *ids, *[tokenizer.eos_token_id] * (room + 1)]
                weights = torch.tensor([1.0, *weights, *[1.0] * (room + 1)])
                with torch.no_grad():
                    z = pipe.text_encoder(torch.tensor([ids])).last_hidden_state
                mean = z.mean()
                z = z * weights.reshape(1, -1, 1)
                made.append(z * (mean / z.mean()))
            return torch.cat(made, dim=1)

        def difference(prompt, *chunks):
            return float((encoded(prompt) - webui(*chunks)).abs().max())

        very = "red " * 21
        other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
        read = prompting.read(other, ["a (red:1.3) cat AND a dog BREAK b"], ["[x]"], 3.0)
        print(json.dumps({
            "differences": [
                difference("a (red:1.3) circle", [("a ", 1), ("red", 1.3), (" circle", 1)]),
                difference("a [red] ((circle))", [("a ", 1), ("red", 1 / 1.1), (" ", 1), ("circle", 1.21)]),
                difference("a (red:0), circle", [("a ", 1), ("red", 0), (", circle", 1)]),
                difference("a (red:1.3) BREAK circle", [("a ", 1), ("red", 1.3)], [("circle", 1)]),
                difference(f"{very}(red circle:1.4)", [(very, 1), ("red", 1.4)], [(" circle", 1.4)]),
            ],
            "plain": float((encoded("a red circle") - webui([("a red circle", 1)])).abs().max()),
            "elsewhere": [read.prompts[0].text, read.negatives[0].text, read.are_plain, read.warnings],
        }))
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_encodings_are_those_of_webui(facts: dict[str, object]) -> None:
    """Weights, weights within weights, BREAK, and text beyond the encoder's limit are encoded as webui does it."""
    assert [0.0] * 5 == pytest.approx(facts["differences"], abs=1e-5)
    assert 0.0 == pytest.approx(facts["plain"], abs=1e-6)


def test_pipelines_without_weights(facts: dict[str, object]) -> None:
    """A pipeline of a kind that takes no weights gets plain words, with warnings for each kind of syntax."""
    assert [
        "a red cat a dog b",
        "x",
        True,
        [
            [
                "AND is not supported by this pipeline, or by a CFG scale of 1 or less; its prompts are drawn as one.",
                "This pipeline takes no weights; drawn as plain words: red, x.",
                "BREAK is not supported by this pipeline; the text is read in one.",
            ]
        ],
    ] == facts["elsewhere"]


def test_weights_are_recorded(generator: Generator, tmp_path: Path) -> None:
    """A weighted prompt makes another picture, which the result explains; the prompt is kept as it was."""
    generate(generator, PLAIN, tmp_path / "plain.png")
    prompt = "a large (red:1.4) circle on a [white] background"
    made = generate(
        generator, with_prompt(prompt, negative_prompt="(blue star)"), tmp_path / "weighted.png"
    )

    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "weighted.png").read_bytes()
    assert (prompt, "(blue star)", []) == (
        made.parameters.prompt,
        made.parameters.negative_prompt,
        made.warnings,
    )
    assert [
        WeightedText(text="red", weight=1.4),
        WeightedText(text="white", weight=0.909091),
        WeightedText(text="blue star", weight=1.1, negative=True),
    ] == made.prompt_weights


@pytest.mark.parametrize(
    "prompt",
    [
        "a large (red:1.0) circle on a white background",
        "a large (red:1.0000001) circle on a white background",
        "a large red circle on a white background BREAK",
        "a large red circle on a white background :0.5"
        " AND a large red circle on a white background :0.5",
    ],
)
def test_weights_of_one(generator: Generator, tmp_path: Path, prompt: str) -> None:
    """Weights of one, and parts that add up to the prompt itself, make the picture of the plain prompt."""
    generate(generator, PLAIN, tmp_path / "plain.png")
    generate(generator, with_prompt(prompt), tmp_path / "weighted.png")

    difference = np.abs(pixels(tmp_path / "plain.png") - pixels(tmp_path / "weighted.png"))
    assert difference.max() <= 1


def test_escaped_brackets(generator: Generator, tmp_path: Path) -> None:
    """Brackets behind backslashes are text without the backslashes."""
    made = generate(generator, with_prompt(r"a large \(red\) circle"), tmp_path / "a.png")

    assert ([], []) == (made.prompt_weights, made.warnings)


def test_and(generator: Generator, tmp_path: Path) -> None:
    """The same prompt twice with AND has twice the effect, as a doubled scale has, and a negative part takes away."""
    prompt = PLAIN.prompt
    both = generate(
        generator, with_prompt(f"{prompt} AND {prompt}", guidance_scale=2.5), tmp_path / "and.png"
    )
    generate(generator, with_prompt(prompt, guidance_scale=5.0), tmp_path / "double.png")
    blue = generate(
        generator, with_prompt(f"{prompt} :0 AND a large blue circle"), tmp_path / "blue.png"
    )

    difference = np.abs(pixels(tmp_path / "and.png") - pixels(tmp_path / "double.png"))
    assert difference.max() <= 2
    assert [WeightedText(text=prompt, weight=1.0)] * 2 == both.prompt_weights
    red, _green, more_blue = pixels(tmp_path / "blue.png")[32, 32]
    assert more_blue > red
    assert [] == blue.warnings


def test_and_without_guidance(generator: Generator, tmp_path: Path) -> None:
    """Where nothing is predicted without the prompt, AND is a warning."""
    made = generate(
        generator, with_prompt("a red circle AND a star", guidance_scale=1.0), tmp_path / "a.png"
    )

    (warning,) = made.warnings
    assert warning.startswith("AND is not supported by this pipeline, or by a CFG scale of 1")


def test_long_weighted_prompt(generator: Generator, tmp_path: Path) -> None:
    """A weighted prompt that is longer than the encoder takes is read whole."""
    prompt = PLAIN.prompt + " and a large blue star" * 5 + " (zebra:1.2)"
    made = generate(generator, with_prompt(prompt, steps=1), tmp_path / "a.png")

    assert [] == made.warnings


def test_brackets_that_are_hardly_meant(generator: Generator, tmp_path: Path) -> None:
    """A ratio in brackets is a weight, as in webui, which is told; letters of all scripts can be weighted."""
    made = generate(
        generator,
        with_prompt("a (gr\u00f6\u00dfer \u2606 \u65e5\u672c:1.3) circle (16:9)", steps=1),
        tmp_path / "a.png",
    )

    assert [
        "'16' has the weight 9, as brackets with a colon and a number mean;"
        " write \\( and \\) for brackets as text."
    ] == made.warnings
    assert [1.3, 9.0] == [weighted.weight for weighted in made.prompt_weights]
