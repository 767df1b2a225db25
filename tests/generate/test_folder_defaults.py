"""What a folder's table gives to the prompts that are dropped there."""

from __future__ import annotations

import pytest

from fluxdrop.config import FolderTable, PipelineTable, Settings
from fluxdrop.generate.choose_pipeline import choose
from fluxdrop.generate.folder_defaults import with_defaults
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.prompt_file import read_prompts

TABLE = FolderTable(
    negative_prompt="blurry",
    steps=9,
    guidance_scale=3.0,
    width=64,
    height=32,
    sampler="Euler a",
    seed=7,
)


def test_fills_what_is_left_open() -> None:
    """A prompt that gives nothing has all of the table's values."""
    made, warnings = with_defaults(PromptParameters(prompt="a"), TABLE, Settings())

    wanted = PromptParameters(
        prompt="a",
        negative_prompt="blurry",
        steps=9,
        guidance_scale=3.0,
        width=64,
        height=32,
        sampler="Euler a",
        seed=7,
    )
    assert (wanted, []) == (made, warnings)


def test_prompt_overrides() -> None:
    """What a prompt gives stays, also a guidance scale or a seed of 0."""
    own = PromptParameters(
        prompt="a",
        negative_prompt="sharp",
        steps=1,
        guidance_scale=0.0,
        width=8,
        height=8,
        sampler="DDIM",
        seed=0,
    )

    assert (own, []) == with_defaults(own, TABLE, Settings())


@pytest.mark.parametrize(
    ("asked", "used", "count"),
    [(None, "soft", 0), ("sharp", "sharp", 0), ("dreamshaper_8", "soft", 1)],
)
def test_pipeline(asked: str | None, used: str, count: int) -> None:
    """A folder's pipeline is used unless the prompt names one of the root's; a name from elsewhere gets a warning."""
    tables = {name: PipelineTable(source="shapes-diffusion") for name in ("soft", "sharp")}
    settings = Settings(pipelines=tables, folders={"a": FolderTable(pipeline="soft")})
    prompt = PromptParameters(prompt="a", pipeline=asked)
    made, warnings = with_defaults(prompt, settings.folders["a"], settings)

    assert (used, count) == (made.pipeline, len(warnings))
    assert used == choose(settings, made.pipeline)[0]


def test_pipeline_of_a_folder_alone() -> None:
    """A folder may name a pipeline that no other setting does, as the setting `pipeline` may; it is found by its whole
    name, and hides none of the same short name."""
    other = {"xl": PipelineTable(source="/models/small/xl")}
    folders = {"a": FolderTable(pipeline="/models/large/xl.safetensors")}
    settings = Settings(pipelines=other, folders=folders)

    assert "/models/large/xl.safetensors" == choose(settings, folders["a"].pipeline)[1].source
    assert "/models/small/xl" == choose(settings, "xl")[1].source


def test_seeds_of_a_batch() -> None:
    """The pictures of a batch without a seed count from the folder's."""
    pictures = read_prompts("a circle\nSteps: 2, Batch size: 3", seed=7)

    assert [7, 8, 9] == [picture.parameters.seed for picture in pictures]


@pytest.mark.parametrize(
    "text",
    [
        "a circle\nNegative prompt:\nSeed: -1",
        '{"prompt": "a circle", "negative_prompt": "", "seed": -1}',
    ],
)
def test_what_a_prompt_says_to_be_open(text: str) -> None:
    """A seed of -1 stays random, and an empty negative prompt empty, whatever the folder has."""
    ((parameters, _warnings),) = read_prompts(text)
    made, _warnings = with_defaults(parameters, TABLE, Settings())

    assert ("", 9) == (made.negative_prompt, made.steps)
    assert (None, 7) == (made.seed, TABLE.seed)
