"""Pictures from prompts, made by real generator processes with the embedded pipeline."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from PIL import Image

import fluxdrop
from fluxdrop.child import ChildDied
from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures
from fluxdrop.generate.generator import Generator, Order
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.request import Generated, GenerationRequest

PROMPT = "a large red circle on a white background"
REQUEST = GenerationRequest(prompt=PROMPT, seed=3)
EMBEDDED = Path(fluxdrop.__file__).parent / "models" / "shapes-diffusion"
ONE_STEP = GenerationRequest(prompt=PROMPT, seed=3, steps=1)

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "diffusers", "transformers")),
    reason="needs the packages of the extra 'generate'",
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the hub's files are kept for `generator`."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def generator(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """One child for all tests that do not end it: importing torch takes seconds.

    Its hub is a closed port.
    """
    generator = Generator(Settings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        patch.setenv("HF_HOME", str(hub))
        patch.delenv("HF_HUB_CACHE", raising=False)
        generate(generator, ONE_STEP, tmp_path_factory.mktemp("first") / "a.png")
    yield generator
    generator.close()


@pytest.fixture(scope="module")
def other() -> Iterator[Generator]:
    """A second child."""
    generator = Generator(Settings())
    yield generator
    generator.close()


def generate(
    generator: Generator,
    request: GenerationRequest,
    target: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """The picture of *request*, at *target*."""
    (generated,) = generator.generate([Order(request, target)], on_progress)
    return generated


def wait_for_end(pid: int) -> None:
    """Wait until no process runs under *pid*."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} still runs")


def use(generator: Generator, monkeypatch: pytest.MonkeyPatch, pipeline: str) -> None:
    """Have *generator* use *pipeline* for the rest of a test, in the child that it has."""
    settings = msgspec.structs.replace(generator._settings, pipeline=pipeline)
    monkeypatch.setattr(generator, "_settings", settings)


@needs_torch
def test_picture(generator: Generator, tmp_path: Path) -> None:
    """A prompt becomes a PNG that shows what it says: a red circle on white."""
    target = tmp_path / "circle.png"

    generated = generate(generator, REQUEST, target)

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


@needs_torch
def test_same_seed_same_bytes(generator: Generator, other: Generator, tmp_path: Path) -> None:
    """Two processes make the same file of the same request, whatever they made before."""
    generate(generator, GenerationRequest(prompt="a blue star", sampler="Euler a"), tmp_path / "x")
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for process, file in zip((generator, other), files, strict=True):
        generate(process, REQUEST, file)

    assert generator.pid != other.pid
    assert files[0].read_bytes() == files[1].read_bytes()


@needs_torch
def test_other_seed_other_bytes(generator: Generator, tmp_path: Path) -> None:
    """Another seed makes another picture."""
    generate(generator, REQUEST, tmp_path / "one.png")
    generate(generator, msgspec.structs.replace(REQUEST, seed=4), tmp_path / "two.png")

    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


@needs_torch
def test_drawn_seed_is_recorded(generator: Generator, tmp_path: Path) -> None:
    """Without a seed one is drawn, and with it the same picture is made again."""
    first, again = tmp_path / "one.png", tmp_path / "two.png"
    seed = generate(generator, GenerationRequest(prompt=PROMPT), first).parameters.seed

    generate(generator, GenerationRequest(prompt=PROMPT, seed=seed), again)

    assert first.read_bytes() == again.read_bytes()


@needs_torch
@pytest.mark.parametrize("sampler", [None, "DPM++ 2M Karras", "Euler a"])
def test_picture_again_from_itself(
    generator: Generator, tmp_path: Path, sampler: str | None
) -> None:
    """A picture's ``parameters`` chunk holds what it was made with, and makes the same file."""
    first, again = tmp_path / "one.png", tmp_path / "two.png"
    request = GenerationRequest(
        prompt="a größer ☆ star,\non yellow", negative_prompt="a: b", sampler=sampler, steps=4
    )
    generated = generate(generator, request, first)
    with Image.open(first) as image:
        infotext = image.info["parameters"]

    replay, warnings = parse_infotext(infotext)
    generate(generator, replay, again)

    made_with = msgspec.structs.asdict(generated.parameters)
    assert GenerationRequest(**made_with, pipeline="shapes-diffusion") == replay
    assert [] == warnings
    assert first.read_bytes() == again.read_bytes()


@needs_torch
def test_progress(generator: Generator, tmp_path: Path) -> None:
    """Each of the 20 recommended steps is told as it is done."""
    progress: list[tuple[int, int]] = []

    generate(generator, REQUEST, tmp_path / "a.png", lambda *done: progress.append(done))

    assert [(step, 20) for step in range(1, 21)] == progress


@needs_torch
def test_recommended_values_can_be_replaced(generator: Generator, tmp_path: Path) -> None:
    """What a prompt names goes before pipeline.toml; a size that does not suit is made and told."""
    request = GenerationRequest(prompt=PROMPT, steps=2, guidance_scale=1.5, width=32, height=40)

    generated = generate(generator, request, tmp_path / "a.png")

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


@needs_torch
def test_model_of_another_station(generator: Generator, tmp_path: Path) -> None:
    """A prompt file cannot have a folder or hub id of its choice loaded; the result says so."""
    request = msgspec.structs.replace(REQUEST, pipeline="someone/model", steps=1)

    generated = generate(generator, request, tmp_path / "a.png")

    assert [
        "Model someone/model is not a pipeline of this station; shapes-diffusion was used."
    ] == generated.warnings


@needs_torch
@pytest.mark.parametrize(
    ("sampler", "sentence"),
    [
        ("Wonder", "Sampler 'Wonder' is not known. Known are Euler, Euler a, DPM++ 2M, "),
        ("DDIM Karras", "Sampler 'DDIM' has no schedule 'Karras'."),
    ],
)
def test_samplers_refused(
    generator: Generator, tmp_path: Path, sampler: str, sentence: str
) -> None:
    """A sampler that is not known is refused with those that are."""
    with pytest.raises(FluxdropError) as caught:
        generate(generator, GenerationRequest(prompt=PROMPT, sampler=sampler), tmp_path / "a.png")

    assert "prompt" == caught.value.kind
    assert str(caught.value).startswith(sentence)


@needs_torch
@pytest.mark.parametrize("sampler", ["Heun", "DPM2 a", "DPM++ 3M SDE Karras", "Heun Simple"])
def test_samplers_from_a_finite_sigma(generator: Generator, tmp_path: Path, sampler: str) -> None:
    """Samplers that would magnify the first step's error draw in the colours that the prompt says."""
    request = msgspec.structs.replace(REQUEST, sampler=sampler)

    generated = generate(generator, request, tmp_path / "a.png")

    with Image.open(tmp_path / "a.png") as image:
        middle, corner = (image.crop((x, x, x + 1, x + 1)).tobytes() for x in (32, 1))
    assert middle[0] > 180
    assert max(middle[1:]) < 100
    assert min(corner) > 220
    assert (sampler, []) == (generated.parameters.sampler, generated.warnings)


@needs_torch
def test_sampler_that_is_known_to_fail(generator: Generator, tmp_path: Path) -> None:
    """A sampler that is known to draw wrong with the pipeline's schedule says so in the result."""
    request = msgspec.structs.replace(ONE_STEP, sampler="DPM++ 3M SDE Beta", steps=2)

    generated = generate(generator, request, tmp_path / "a.png")

    assert [
        "Sampler DPM++ 3M SDE Beta is known to draw wrong colours with this pipeline; others do not."
    ] == generated.warnings


@needs_torch
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
        from fluxdrop.generate.pipeline import Pipeline, Wanted
        from fluxdrop.generate.request import GenerationRequest

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
            requests = [GenerationRequest(prompt="a ring", seed=n, steps=1) for n in range(count)]
            wanted = [Wanted(request, request.prompt) for request in requests]
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
    many = "The memory did not suffice for 4 pictures at once."
    tiling = "The memory did not suffice without VAE tiling."
    assert [
        [[seed, [many]] for seed in range(4)],
        [[0, [tiling]]],
        [[0, []]],
        False,
    ] == json.loads(done.stdout.splitlines()[-1])


@needs_torch
def test_folder_as_pipeline(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diffusers folder anywhere is a pipeline, and is asked for by its name."""
    shutil.copytree(EMBEDDED, tmp_path / "mine", ignore=shutil.ignore_patterns("pipeline.toml"))
    use(generator, monkeypatch, str(tmp_path / "mine"))
    request = GenerationRequest(prompt=PROMPT, steps=1, pipeline="mine")

    generated = generate(generator, request, tmp_path / "a.png")

    assert ("mine", []) == (generated.generator.model, generated.warnings)
    assert 7.5 == generated.parameters.guidance_scale


@needs_torch
def test_hub_from_the_cache(
    generator: Generator, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched from the hub before is used while the hub cannot be reached."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub / "hub" / "models--someone--cached"
    shutil.copytree(EMBEDDED, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    use(generator, monkeypatch, "someone/cached")

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


@needs_torch
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
    """A pipeline that cannot be had is one sentence, and the child serves the next request."""
    child = generator.pid
    started = time.monotonic()
    with monkeypatch.context() as patch:
        use(generator, patch, make(tmp_path))
        with pytest.raises(FluxdropError) as caught:
            generate(generator, ONE_STEP, tmp_path / "a.png")

    generate(generator, ONE_STEP, tmp_path / "a.png")

    assert "pipeline" == caught.value.kind
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert child == generator.pid
    assert time.monotonic() - started < 20


@needs_torch
def test_killed_child(tmp_path: Path) -> None:
    """A child that is killed in the middle is ChildDied with no torn file; the next call works."""
    generator = Generator(Settings())
    target = tmp_path / "a.png"

    def kill(step: int, steps: int) -> None:
        assert generator.pid is not None
        os.kill(generator.pid, signal.SIGKILL)

    try:
        with pytest.raises(ChildDied, match="ended by SIGKILL"):
            generate(generator, REQUEST, target, kill)
        assert generator.pid is None
        assert not target.exists()

        generate(generator, ONE_STEP, target)

        assert target.exists()
    finally:
        generator.close()


@needs_torch
def test_wait_hook_ends_the_wait(tmp_path: Path) -> None:
    """What the wait hook raises reaches the caller, and the child is gone."""

    def hook() -> None:
        raise InterruptedError

    generator = Generator(Settings(), wait_hook=hook)
    try:
        with pytest.raises(InterruptedError):
            generate(generator, REQUEST, tmp_path / "a.png")

        assert generator.pid is None
    finally:
        generator.close()


@needs_torch
def test_close_frees(tmp_path: Path) -> None:
    """After close no process is left, and a second close does nothing."""
    generator = Generator(Settings(pipeline="./nowhere"))
    with pytest.raises(FluxdropError):
        generate(generator, REQUEST, tmp_path / "a.png")
    pid = generator.pid
    assert pid is not None

    generator.close()
    generator.close()

    assert generator.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_torch
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal is Linux's")
def test_child_ends_with_its_parent(tmp_path: Path) -> None:
    """When the parent is killed, the child ends, also in the middle of a picture."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fluxdrop.config import Settings
        from fluxdrop.generate.generator import Generator, Order
        from fluxdrop.generate.request import GenerationRequest

        generator = Generator(Settings())
        request = GenerationRequest(prompt="a ring", steps=1000)
        tell = lambda step, steps: print(generator.pid, flush=True)
        generator.generate([Order(request, Path(sys.argv[1]))], tell)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.png")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        # The log writes to the same stream until it is configured.
        pid = next(int(line) for line in parent.stdout if line.strip().isdigit())

        parent.kill()

        wait_for_end(pid)


@needs_torch
def test_torch_stays_out_of_the_host(tmp_path: Path) -> None:
    """The process that asks for a picture never imports torch, diffusers or transformers."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fluxdrop.config import Settings
        from fluxdrop.generate.generator import Generator, Order
        from fluxdrop.generate.request import GenerationRequest

        generator = Generator(Settings())
        request = GenerationRequest(prompt="a ring", steps=1)
        generator.generate([Order(request, Path(sys.argv[1]))])
        generator.close()
        assert not {"torch", "diffusers", "transformers"} & sys.modules.keys()
        """
    )

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=False)

    assert 0 == done.returncode


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra's packages no child is started, and the error names the extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    generator = Generator(Settings())

    with pytest.raises(FluxdropError) as caught:
        generate(generator, REQUEST, tmp_path / "a.png")

    assert "generator" == caught.value.kind
    assert "pip install 'fluxdrop[generate]'" in caught.value.hint
    assert "needs the packages of the extra 'generate'" in caught.value.message
    assert generator.pid is None


def test_impossible_request(tmp_path: Path) -> None:
    """An impossible value is refused before any child is started."""
    generator = Generator(Settings())

    with pytest.raises(FluxdropError, match="Steps is 0; possible is 1 to 1000"):
        generate(generator, GenerationRequest(prompt="a", steps=0), tmp_path / "a.png")

    assert generator.pid is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "memory"),
        (RuntimeError("a\nb"), "compute"),
        (FluxdropError("no", kind="prompt"), "prompt"),
    ],
)
def test_failures(error: Exception, kind: str) -> None:
    """Whatever goes wrong is one line with a kind; the end of memory has one of its own."""
    facts = failures.facts(error)

    assert kind == facts["kind"]
    assert "\n" not in facts["message"]
