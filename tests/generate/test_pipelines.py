"""Pipelines of several kinds through the generator: SDXL, SD3, FLUX, single files, LoRAs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.parameters import PromptParameters
from support.generators import generate, use
from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]

PROMPT = "a red circle on a white background"
CONFIG = "shapes-diffusion"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny pipelines."""
    made = tmp_path_factory.mktemp("pipelines")
    script = Path(__file__).parents[1] / "support" / "tiny_pipelines.py"
    done = subprocess.run(
        [sys.executable, script, made], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    return made


@pytest.fixture(name="generator")
def with_pipelines(
    generator: Generator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator:
    """The generator with all of them by name."""
    tables = {
        name: PipelineTable(source=str(folder / name)) for name in ("sdxl", "sd3", "flux", "unsafe")
    }
    tables |= {
        "narrow": PipelineTable(source=str(folder / "narrow"), dtype="float16"),
        "one file": PipelineTable(source=str(folder / "single.safetensors"), config=CONFIG),
        "bare file": PipelineTable(source=str(folder / "single.safetensors")),
        "few steps": PipelineTable(source="shapes-diffusion", steps=2, guidance_scale=2.0),
        "elsewhere": PipelineTable(source="shapes-diffusion", device="mps"),
    }
    use(generator, monkeypatch, pipelines=tables, loras=str(folder))
    return generator


def parameters(pipeline: str, prompt: str = PROMPT, **values: object) -> PromptParameters:
    """Parameters of two steps."""
    options: dict[str, object] = {"steps": 2, "seed": 7, **values}
    return PromptParameters(prompt=prompt, pipeline=pipeline, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "class_name", "sampler"),
    [
        ("sdxl", "StableDiffusionXLPipeline", "Euler a"),
        ("sd3", "StableDiffusion3Pipeline", "Euler"),
        ("flux", "FluxPipeline", "Euler Simple"),
    ],
)
def test_kinds_of_pipelines(
    generator: Generator, tmp_path: Path, name: str, class_name: str, sampler: str
) -> None:
    """SDXL, SD3 and FLUX pipelines run through the same code, and make the same bytes twice."""
    wanted = parameters(name, width=32, height=32, sampler=sampler)
    made = generate(generator, wanted, tmp_path / "one.png")
    again = generate(generator, wanted, tmp_path / "two.png")

    assert (name, class_name, sampler) == (
        made.generator.name,
        made.generator.pipeline,
        made.parameters.sampler,
    )
    assert made == again
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_weights(generator: Generator, tmp_path: Path, name: str) -> None:
    """These pipelines take weights, too: a weight of nearly one changes nothing, and another one does."""
    made = {}
    for number, weight in enumerate((1, 1.000001, 3)):
        wanted = parameters(name, f"a red (circle:{weight}) on white", width=32, height=32)
        found = generate(generator, wanted, tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as image:
            made[number] = image.tobytes()
        assert [] == found.warnings
    nearly = max(abs(a - b) for a, b in zip(made[0], made[1], strict=True))

    assert nearly <= 1
    assert made[2] != made[0]
    assert [3.0] == [weighted.weight for weighted in found.prompt_weights]


def test_break_and_and(generator: Generator, tmp_path: Path) -> None:
    """SDXL takes both; SD3 and FLUX, which cannot, draw the text in one and say so."""
    prompt = "a red circle BREAK on white AND a star"
    made = {
        name: generate(
            generator,
            parameters(name, prompt, width=32, height=32, guidance_scale=3.0),
            tmp_path / f"{name}.png",
        )
        for name in ("sdxl", "sd3", "flux")
    }

    assert [] == made["sdxl"].warnings
    for name in ("sd3", "flux"):
        assert ["AND is not supported", "BREAK is not supported"] == [
            warning[: warning.index(" by this")] for warning in made[name].warnings
        ]


def test_negative_prompt_that_counts_for_nothing(generator: Generator, tmp_path: Path) -> None:
    """FLUX takes no negative prompt, which the result says and does not record."""
    wanted = parameters("flux", negative_prompt="blue", width=32, height=32)
    made = generate(generator, wanted, tmp_path / "a.png")

    assert "" == made.parameters.negative_prompt
    assert ["The pipeline flux takes no negative prompt."] == made.warnings


def test_sampler_of_another_kind(generator: Generator, tmp_path: Path) -> None:
    """A sampler that flow matching does not have is refused."""
    with pytest.raises(FluxdropError, match="Sampler 'DDIM' does not fit this pipeline"):
        generate(generator, parameters("sd3", sampler="DDIM"), tmp_path / "a.png")


def test_configured_values(generator: Generator, tmp_path: Path) -> None:
    """What a table names is taken where the prompt file names nothing."""
    made = generate(generator, parameters("few steps", steps=None), tmp_path / "a.png")

    assert (2, 2.0) == (made.parameters.steps, made.parameters.guidance_scale)


def test_long_prompt(generator: Generator, tmp_path: Path) -> None:
    """A prompt that is longer than the encoder takes is made, and the part it cut is a warning."""
    prompt = PROMPT + " and a large blue star" * 5 + " zebra"
    made = generate(generator, parameters("shapes-diffusion", prompt), tmp_path / "a.png")

    (warning,) = made.warnings
    assert warning.startswith("The prompt has ")
    assert " of which 24 are read; cut: " in warning
    assert warning.endswith("zebra")


def test_single_file(generator: Generator, tmp_path: Path) -> None:
    """A single .safetensors file with the configuration of a folder makes the very picture that its
    pipeline makes as a folder."""
    generate(
        generator, parameters("shapes-diffusion", width=64, height=64), tmp_path / "folder.png"
    )
    made = generate(generator, parameters("one file", width=64, height=64), tmp_path / "file.png")

    with (
        Image.open(tmp_path / "folder.png") as expected,
        Image.open(tmp_path / "file.png") as found,
    ):
        assert expected.tobytes() == found.tobytes()
    assert "single" == made.generator.model


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bare file", "single.safetensors looks like .*, but the configuration of that cannot be"),
        ("elsewhere", "The pipeline elsewhere is to run on mps, which torch does not find here."),
    ],
)
def test_refused(generator: Generator, tmp_path: Path, name: str, sentence: str) -> None:
    """What cannot be loaded is one sentence."""
    with pytest.raises(FluxdropError, match=sentence) as caught:
        generate(generator, parameters(name), tmp_path / "a.png")

    assert "pipeline" == caught.value.kind


def test_lora(generator: Generator, folder: Path, tmp_path: Path) -> None:
    """A LoRA changes the picture by its weight, is recorded in the prompt, and leaves no trace in
    the next picture without it."""
    plain = parameters("shapes-diffusion")
    tagged = parameters("shapes-diffusion", f"{PROMPT} <lora:paint:2>")
    none = parameters("shapes-diffusion", f"{PROMPT} <lora:paint:0>")
    for name, wanted in (("a", plain), ("b", tagged), ("c", none), ("d", tagged), ("e", plain)):
        made = generate(generator, wanted, tmp_path / f"{name}.png")
        assert wanted.prompt == made.parameters.prompt
        assert [] == made.warnings
    pixels = {}
    for name in "abcde":
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels[name] = image.tobytes()

    assert pixels["a"] == pixels["c"] == pixels["e"]
    assert pixels["b"] == pixels["d"] != pixels["a"]


def test_lora_that_does_not_fit(generator: Generator, tmp_path: Path) -> None:
    """A LoRA of another kind of pipeline is one sentence, and one that is not there a warning."""
    with pytest.raises(FluxdropError, match="The LoRA paint cannot be used with the pipeline sdxl"):
        generate(generator, parameters("sdxl", f"{PROMPT} <lora:paint>"), tmp_path / "a.png")
    made = generate(
        generator, parameters("shapes-diffusion", f"{PROMPT} <lora:nobody:1>"), tmp_path / "b.png"
    )

    assert ["LoRA nobody is not on this machine; the picture is made without it."] == made.warnings


def test_black_in_float16(generator: Generator, tmp_path: Path) -> None:
    """A picture whose numbers overflow float16 is made again in float32, which the result says."""
    made = generate(generator, parameters("narrow", width=64, height=64), tmp_path / "a.png")

    assert ["Black in float16, so it was made again in float32."] == [
        warning for warning in made.warnings if "float16" in warning
    ]
    with Image.open(tmp_path / "a.png") as image:
        assert any(image.tobytes())


def test_safety_checker(generator: Generator, tmp_path: Path) -> None:
    """The pipeline's own safety checker is used, and the result says what it found."""
    made = generate(generator, parameters("unsafe", width=64, height=64), tmp_path / "a.png")

    assert made.nsfw is True
    assert ["The pipeline's safety checker took the picture for unsafe."] == made.warnings
