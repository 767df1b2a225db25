"""Where a pipeline may come from, and what is refused."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.generator import Generator
from fluxdrop.generate.parameters import PromptParameters
from support.generators import EMBEDDED, ONE_STEP, PROMPT, generate, use
from support.needs import needs_generation

pytestmark = [needs_generation, pytest.mark.slow]


def test_folder_as_pipeline(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diffusers folder anywhere is a pipeline, and is asked for by its name."""
    shutil.copytree(EMBEDDED, tmp_path / "mine", ignore=shutil.ignore_patterns("pipeline.toml"))
    use(generator, monkeypatch, pipeline=str(tmp_path / "mine"))
    parameters = PromptParameters(prompt=PROMPT, steps=1, pipeline="mine")

    generated = generate(generator, parameters, tmp_path / "a.png")

    assert ("mine", []) == (generated.generator.model, generated.warnings)
    assert 7.5 == generated.parameters.guidance_scale


def test_hub_from_the_cache(
    generator: Generator, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched from the hub before is used while the hub cannot be reached."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub / "hub" / "models--someone--cached"
    shutil.copytree(EMBEDDED, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    use(generator, monkeypatch, pipeline="someone/cached")

    generated = generate(generator, ONE_STEP, tmp_path / "a.png")

    assert ("someone/cached", commit) == (
        generated.generator.model,
        generated.generator.revision,
    )


def missing(folder: Path) -> str:
    return str(folder / "nowhere")


def not_diffusers(folder: Path) -> str:
    return str(folder)


def pickled(folder: Path) -> str:
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet"]})
    )
    (folder / "unet").mkdir()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80")
    return str(folder)


def not_text_to_image(folder: Path) -> str:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    return str(folder)


def unreachable(folder: Path) -> str:
    return "someone/model@main"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (missing, "no such folder"),
        (not_diffusers, "is not a diffusers pipeline: it has no model_index.json"),
        (pickled, "has pickled weights only (unet/diffusion_pytorch_model.bin)"),
        (not_text_to_image, "is not a text-to-image pipeline"),
        (unreachable, "is not on this machine, and the hub cannot be reached"),
    ],
)
def test_pipelines_refused(
    make: Callable[[Path], str],
    sentence: str,
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pipeline that cannot be had is one sentence, and the child serves the next order."""
    child = generator.pid
    started = time.monotonic()
    with monkeypatch.context() as patch:
        use(generator, patch, pipeline=make(tmp_path))
        with pytest.raises(FluxdropError) as caught:
            generate(generator, ONE_STEP, tmp_path / "a.png")

    generate(generator, ONE_STEP, tmp_path / "a.png")

    assert "pipeline" == caught.value.kind
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert child == generator.pid
    assert time.monotonic() - started < 20
