"""Pictures made by a generator process, which tests share: importing torch takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

import fluxdrop
from fluxdrop.config import Settings
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.parameters import Generated, PromptParameters

PROMPT = "a large red circle on a white background"
PARAMETERS = PromptParameters(prompt=PROMPT, seed=3)
ONE_STEP = PromptParameters(prompt=PROMPT, seed=3, steps=1)
EMBEDDED = Path(fluxdrop.__file__).parent / "models" / "shapes-diffusion"


@pytest.fixture(scope="session", autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which every process under test keeps the hub's files; the hub is a closed port."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        patch.setenv("HF_HOME", str(folder))
        patch.delenv("HF_HUB_CACHE", raising=False)
        yield folder


@pytest.fixture(scope="session")
def generator(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """One child for all tests."""
    with closing(Generator(Settings())) as generator:
        generate(generator, ONE_STEP, tmp_path_factory.mktemp("first") / "a.png")
        yield generator


def use(generator: Generator, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """Have *generator* go by other *settings* for the rest of a test, in the child that it has."""
    changed = msgspec.structs.replace(generator._settings, **settings)
    monkeypatch.setattr(generator, "_settings", changed)


def generate(
    generator: Generator,
    parameters: PromptParameters,
    target: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """The picture of *parameters*, at *target*."""
    ((png, generated),) = generator.generate([GenerationOrder(parameters)], on_progress)
    target.write_bytes(png)
    return generated
