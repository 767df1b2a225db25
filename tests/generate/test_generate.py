"""Pictures from prompts, made by a real generator process with the embedded pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from fluxdrop.generate.generator import Generator
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.parameters import PromptParameters
from support.generators import PARAMETERS, PROMPT, generate
from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]


@pytest.fixture(scope="module")
def of_another_host(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The libraries that a host of its own had loaded after PARAMETERS, and the picture."""
    code = textwrap.dedent(
        f"""
        import json, sys
        from pathlib import Path
        from fluxdrop.config import Settings
        from fluxdrop.generate.generator import GenerationOrder, Generator
        from fluxdrop.generate.parameters import PromptParameters

        generator = Generator(Settings())
        parameters = PromptParameters(prompt={PARAMETERS.prompt!r}, seed={PARAMETERS.seed})
        ((png, _generated),) = generator.generate([GenerationOrder(parameters)])
        Path(sys.argv[1]).write_bytes(png)
        generator.close()
        print(json.dumps(sorted({{"torch", "diffusers", "transformers"}} & sys.modules.keys())))
        """
    )
    target = tmp_path_factory.mktemp("another") / "a.png"
    done = subprocess.run(
        [sys.executable, "-c", code, target], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), target


def test_picture(generator: Generator, tmp_path: Path) -> None:
    """A prompt becomes a PNG that shows what it says: a red circle on white."""
    target = tmp_path / "circle.png"

    generated = generate(generator, PARAMETERS, target)

    with Image.open(target) as image:
        assert ("PNG", (64, 64), "RGB") == (image.format, image.size, image.mode)
        pixels = image.tobytes()
    colours = list(zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True))
    white = sum(min(colour) > 220 for colour in colours)
    red = sum(r > 180 and g < 100 and b < 100 for r, g, b in colours)
    assert 0.4 < white / 4096 < 0.95
    assert 0.05 < red / 4096 < 0.6
    assert [target] == list(tmp_path.iterdir())
    assert (64, 64, None, []) == (
        generated.width,
        generated.height,
        generated.nsfw,
        generated.warnings,
    )
    assert ("StableDiffusionPipeline", "shapes-diffusion", None) == (
        generated.generator.pipeline,
        generated.generator.model,
        generated.generator.revision,
    )


def test_same_seed_same_bytes(
    generator: Generator, of_another_host: tuple[list[str], Path], tmp_path: Path
) -> None:
    """Two processes make the same file with the same parameters, whatever they made before."""
    generate(generator, PromptParameters(prompt="a blue star", sampler="Euler a"), tmp_path / "x")
    generate(generator, PARAMETERS, tmp_path / "a.png")

    assert of_another_host[1].read_bytes() == (tmp_path / "a.png").read_bytes()


def test_torch_stays_out_of_the_host(of_another_host: tuple[list[str], Path]) -> None:
    """The process that asks for a picture never imports torch, diffusers or transformers."""
    assert [] == of_another_host[0]


def test_other_seed_other_bytes(generator: Generator, tmp_path: Path) -> None:
    """Another seed makes another picture."""
    generate(generator, PARAMETERS, tmp_path / "one.png")
    generate(generator, msgspec.structs.replace(PARAMETERS, seed=4), tmp_path / "two.png")

    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_drawn_seed_is_recorded(generator: Generator, tmp_path: Path) -> None:
    """Without a seed one is drawn, and with it the same picture is made again."""
    first, again = tmp_path / "one.png", tmp_path / "two.png"
    seed = generate(generator, PromptParameters(prompt=PROMPT), first).parameters.seed

    generate(generator, PromptParameters(prompt=PROMPT, seed=seed), again)

    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("sampler", [None, "DPM++ 2M Karras", "Euler a"])
def test_picture_again_from_itself(
    generator: Generator, tmp_path: Path, sampler: str | None
) -> None:
    """A picture's ``parameters`` chunk holds what it was made with, and makes the same file."""
    first, again = tmp_path / "one.png", tmp_path / "two.png"
    parameters = PromptParameters(
        prompt="a größer ☆ star,\non yellow", negative_prompt="a: b", sampler=sampler, steps=4
    )
    generated = generate(generator, parameters, first)
    with Image.open(first) as image:
        infotext = image.info["parameters"]

    replay, warnings = parse_infotext(infotext)
    generate(generator, replay, again)

    made_with = msgspec.structs.asdict(generated.parameters)
    assert PromptParameters(**made_with, pipeline="shapes-diffusion") == replay
    assert [] == warnings
    assert first.read_bytes() == again.read_bytes()


def test_progress(generator: Generator, tmp_path: Path) -> None:
    """Each of the 20 recommended steps is told as it is done."""
    progress: list[tuple[int, int]] = []

    generate(generator, PARAMETERS, tmp_path / "a.png", lambda *done: progress.append(done))

    assert [(step, 20) for step in range(1, 21)] == progress


def test_recommended_values_can_be_replaced(generator: Generator, tmp_path: Path) -> None:
    """What a prompt names goes before pipeline.toml; a size that does not suit is made and told."""
    parameters = PromptParameters(prompt=PROMPT, steps=2, guidance_scale=1.5, width=32, height=40)

    generated = generate(generator, parameters, tmp_path / "a.png")

    made_with = generated.parameters
    assert (2, 1.5, 32, 40) == (
        made_with.steps,
        made_with.guidance_scale,
        made_with.width,
        made_with.height,
    )
    assert [
        "The pipeline shapes-diffusion is made for 64x64 only; at 32x40 it may draw anything."
    ] == generated.warnings


def test_model_of_another_root(generator: Generator, tmp_path: Path) -> None:
    """A prompt file cannot have a folder or hub id of its choice loaded; the result says so."""
    parameters = msgspec.structs.replace(PARAMETERS, pipeline="someone/model", steps=1)

    generated = generate(generator, parameters, tmp_path / "a.png")

    assert [
        "Model someone/model is not a pipeline of this root; shapes-diffusion was used."
    ] == generated.warnings


def test_memory_that_does_not_suffice() -> None:
    """Where torch's allocator refuses a run, it is made in smaller ones, and at last with tiling,
    which the results say and the next run does not keep.

    Beyond two pictures at once, and in a decoder without tiling, hooks ask for more than there is.
    """
    code = textwrap.dedent(
        """
        import json
        import torch
        from fluxdrop.config import PipelineTable
        from fluxdrop.generate import sources
        from fluxdrop.generate.messages import PictureOrder
        from fluxdrop.generate.parameters import PromptParameters
        from fluxdrop.generate.pipeline import Pipeline

        table = PipelineTable(source="shapes-diffusion")
        pipe = Pipeline("shapes-diffusion", table, sources.find(table.source))
        unet, vae = pipe._pipe.unet, pipe._pipe.vae

        def many(module, inputs):
            if len(inputs[0]) > 4:
                torch.empty(2**50)

        def whole(module, inputs):
            if not vae.use_tiling:
                torch.empty(2**50)

        def made(count):
            wanted = [
                PictureOrder(
                    parameters=PromptParameters(prompt="a ring", seed=seed, steps=1), prompt="a ring"
                )
                for seed in range(count)
            ]
            pictures = pipe.generate(wanted, [], lambda step, steps: None)
            return [(one.parameters.seed, one.warnings) for _image, one in pictures]

        unet.register_forward_pre_hook(many)
        four = made(4)
        hook = vae.decoder.register_forward_pre_hook(whole)
        tiled = made(1)
        hook.remove()
        print(json.dumps([four, tiled, made(1), vae.use_tiling]))
        """
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    many = "There was not enough memory for 4 pictures at once."
    tiling = "There was not enough memory without VAE tiling."
    assert [
        [[seed, [many]] for seed in range(4)],
        [[0, [tiling]]],
        [[0, []]],
        False,
    ] == json.loads(done.stdout.splitlines()[-1])
