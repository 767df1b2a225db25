"""Checks of the machine: versions, Julia, the engine, the generator, the GPU and the service."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from fluxdrop import __version__
from fluxdrop.config import Settings
from fluxdrop.doctor.finding import Finding
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.resources import expanded

_PACKAGES = ("numpy", "pillow", "msgspec", "onnx", "onnxruntime", "watchdog")
_GENERATION = ("torch", "diffusers", "transformers")
_GPU_DEVICES = ("nvidia0", "kfd")


def versions() -> Iterator[Finding]:
    """Report the versions of fluxdrop, Python, the system and the packages."""
    python = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    yield Finding("fluxdrop", "ok", f"{__version__}, {python}, {platform.machine()}")
    yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))


def julia(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Check which Julia is found, and whether it has Flux; with *deep*, by running it."""
    from fluxdrop.provision import find_julia
    from fluxdrop.provision.check import check_julia

    install = find_julia()
    if install is None:
        needed = settings.engine.startswith("julia")
        yield Finding(
            "julia",
            "broken" if needed else "note",
            "there is none" + ("" if needed else "; models run on onnxruntime"),
            "Run: fluxdrop setup",
        )
        return
    where = f"{install.version} at {install.executable} (from {install.source})"
    yield Finding("julia", "ok", where)
    checked = check_julia(install) if deep else None
    flux = checked.flux if checked else install.flux
    if flux:
        yield Finding("flux", "ok", flux)
    else:
        reason = f": {checked.flux_error}" if checked else ""
        yield Finding(
            "flux",
            "broken" if settings.julia_backend == "flux" else "note",
            f"not found{reason}; plain layers do its work",
            "Run: fluxdrop setup --force, where Julia's servers can be reached",
        )


def engine(settings: Settings, root: Root | None) -> Iterator[Finding]:
    """Check that the model loads, and that the engine starts and answers."""
    from fluxdrop.predict.answer import answer_of
    from fluxdrop.predict.bundle import load_bundle
    from fluxdrop.predict.choose_engine import open_engine
    from fluxdrop.predict.parity import samples

    bundle = load_bundle(settings.model, root.models if root else None)
    count = len(bundle.spec.labels)
    answer = f"{count} labels" if count > 1 else bundle.spec.summary
    yield Finding("model", "ok", f"{bundle.name}: {answer}, sha256 {bundle.sha256[:12]}")
    batch = samples(bundle, settings)
    started = time.monotonic()
    with closing(open_engine(settings, bundle)) as opened:
        start = time.monotonic() - started
        before = time.perf_counter()
        for row in opened.predict(batch):
            answer_of(row, bundle)
        took = (time.perf_counter() - before) * 1000 / len(batch)
        info = opened.info
    layers = "" if info.backend == "onnxruntime" else f" with {info.backend} layers"
    says = f"{info.engine} {info.version}{layers} on {info.device}"
    yield Finding("engine", "ok", f"{says}: started in {start:.1f} s, {took:.1f} ms a picture")
    if info.note and info.backend == "onnxruntime":
        yield Finding("engine", "note", info.note, "fluxdrop setup provides what is missing.")


def generator(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Check that prompts can become pictures; with *deep*, by generating one."""
    missing = [name for name in _GENERATION if find_spec(name) is None]
    if missing:
        yield Finding(
            "generator",
            "note",
            f"{', '.join(missing)} not installed, so prompts fail; pictures are fine",
            "Run: pip install 'fluxdrop[generate]'",
        )
        return
    packages = ", ".join(f"{name} {_version(name)}" for name in _GENERATION)
    yield Finding("generator", "ok", packages)
    yield from _generate_picture(settings) if deep else _locate_pipeline(settings)


def _locate_pipeline(settings: Settings) -> Iterator[Finding]:
    from fluxdrop.generate import sources

    if settings.pipeline in sources.embedded() or expanded(settings.pipeline).is_dir():
        source = sources.find(settings.pipeline)
        yield Finding("pipeline", "ok", f"{settings.pipeline} at {source.location}")
    else:
        yield Finding(
            "pipeline",
            "note",
            f"{settings.pipeline} is fetched from the hub when the first prompt comes",
            "fluxdrop doctor --deep fetches and loads it now.",
        )


def _generate_picture(settings: Settings) -> Iterator[Finding]:
    from fluxdrop.generate.generator import GenerationOrder, Generator
    from fluxdrop.generate.parameters import PromptParameters

    with closing(Generator(settings)) as generator:
        started = time.monotonic()
        parameters = PromptParameters(prompt="a circle", steps=2, seed=1)
        (made,) = generator.generate([GenerationOrder(parameters)])
        took = time.monotonic() - started
    info = made.generated.generator
    yield Finding(
        "pipeline", "ok", f"{info.model} on {info.device}: a picture of 2 steps in {took:.1f} s"
    )


def gpu(settings: Settings) -> Iterator[Finding]:
    """Check whether there is a GPU that Flux or torch could use."""
    found = [name for name in _GPU_DEVICES if Path("/dev", name).exists()]
    if found:
        yield Finding("gpu", "ok", f"/dev/{found[0]}")
    else:
        yield Finding(
            "gpu",
            "broken" if settings.device == "gpu" else "note",
            "none, so everything runs on the CPU",
            "Set device to auto." if settings.device == "gpu" else "",
        )


def unit() -> Iterator[Finding]:
    """Check whether a systemd unit of fluxdrop is installed, if the machine runs systemd."""
    folders = ("/etc/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system")
    own = Path.home() / ".config/systemd/user"
    units = [path for folder in (*folders, own) for path in Path(folder).glob("fluxdrop*.service")]
    if units:
        yield Finding("service", "ok", ", ".join(map(str, units)))
    elif Path("/run/systemd/system").is_dir():
        remedy = "fluxdrop service install writes one."
        yield Finding("service", "note", "no systemd unit is installed", remedy)
    else:
        yield Finding("service", "note", "this machine does not run systemd")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError as error:
        raise FluxdropError(
            f"The package {name} is not installed",
            hint="Install fluxdrop again, with what it depends on.",
        ) from error
