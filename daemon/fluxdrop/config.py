"""Settings, from fluxdrop.toml in the root, FLUXDROP_ variables and flags; the later one overrides.

The model that ``fluxdrop model use`` chose comes between the file and the variables.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.files.layout import Root
from fluxdrop.files.regular import open_given
from fluxdrop.files.transient import remedy_of

FILE = "fluxdrop.toml"
PREFIX = "FLUXDROP_"
OTHER_VARIABLES = (
    "FLUXDROP_ROOT",
    "FLUXDROP_JULIA",
    "FLUXDROP_JULIA_PROJECT",
    "FLUXDROP_DATA_DIR",
    "FLUXDROP_COVERAGE",
    "FLUXDROP_FAILPOINT",
    "FLUXDROP_SNAPSHOTS",
)
"""The variables that are not settings. The last three are for tests."""

# poll(2) can wait for 24 days at most.
Seconds = Annotated[float, Meta(gt=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1)]


class PipelineTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[pipelines.NAME]``: a diffusers pipeline that prompt files select with ``Model: NAME``.

    *source* is an embedded pipeline's name, a diffusers folder, a single .safetensors file or a hub
    id; *config* is the folder or hub id with the configuration for a single file. The last four are
    the defaults for prompt files.
    """

    source: str
    revision: str | None = None
    config: str | None = None
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    attention_slicing: bool = False
    vae_tiling: bool = False
    steps: Count | None = None
    guidance_scale: float | None = None
    width: Count | None = None
    height: Count | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings.

    Each field is a key of fluxdrop.toml and, in capitals, a FLUXDROP_ variable.
    """

    engine: Annotated[
        Literal["auto", "julia", "juliacall", "onnxruntime"],
        Meta(description="what runs the model; auto takes the first that works"),
    ] = "auto"
    julia_backend: Annotated[
        Literal["auto", "flux", "plain"],
        Meta(
            description="the layers in the Julia worker; auto loads Flux where it can, and computes with fluxdrop's "
            "own layers on a CPU, which are faster than Flux's; flux takes Flux's everywhere"
        ),
    ] = "auto"
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        Meta(description="where Flux computes; auto takes a GPU where Flux finds one that works"),
    ] = "auto"
    model: Annotated[
        str, Meta(description="the model bundle: an embedded one's name, or a folder")
    ] = "round-or-angular"
    pipeline: Annotated[
        str,
        Meta(
            description="the diffusers pipeline: an embedded one's name, a folder, a .safetensors"
            " file, a hub id, or the NAME of one of `pipelines`"
        ),
    ] = "shapes-diffusion"
    pipelines: Annotated[
        dict[str, PipelineTable],
        Meta(
            description="tables `[pipelines.NAME]` of more pipelines ([docs](docs/generation.md))"
        ),
    ] = {}
    loras: Annotated[
        str, Meta(description="the folder of the LoRA files that `<lora:NAME:WEIGHT>` means")
    ] = ""
    batch_size: Annotated[Count, Meta(description="most pictures in one forward pass")] = 32
    settle_seconds: Annotated[
        Seconds, Meta(description="how long a file must not change before it is taken as whole")
    ] = 2.0
    incomplete_seconds: Annotated[
        Seconds, Meta(description="how long an incomplete file may stand still before it fails")
    ] = 60.0
    scan_seconds: Annotated[
        Seconds, Meta(description="how often the inbox is read, whatever the events say")
    ] = 30.0
    max_file_bytes: Annotated[Count, Meta(description="largest picture file")] = 256 * 1024**2
    max_pixels: Annotated[Count, Meta(description="most pixels a picture may have")] = 100_000_000
    # A result contains the prompt twice, and is not read if it is larger than 4 MiB.
    max_prompt_bytes: Annotated[
        int, Meta(ge=1, le=256 * 1024, description="largest prompt file")
    ] = 64 * 1024
    max_pictures_per_prompt: Annotated[
        int, Meta(ge=1, le=1000, description="most pictures that one prompt file may ask for")
    ] = 64
    max_steps: Annotated[
        Count, Meta(description="most steps that a prompt file may request per picture")
    ] = 150
    max_generated_pixels: Annotated[
        Count,
        Meta(
            description="most pixels, width times height, that a prompt file may request per picture"
        ),
    ] = 2048 * 2048
    worker_start_seconds: Annotated[
        Seconds, Meta(description="how long the Julia worker may take to start and load a model")
    ] = 180.0
    worker_call_seconds: Annotated[
        Seconds, Meta(description="how long one forward pass may take")
    ] = 60.0
    worker_max_bytes: Annotated[
        Count,
        Meta(description="memory above which the Julia worker is replaced, between two batches"),
    ] = 4 * 1024**3
    generator_start_seconds: Annotated[
        Seconds, Meta(description="how long the image generator may take to load a pipeline")
    ] = 900.0
    generator_step_seconds: Annotated[
        Seconds, Meta(description="how long one denoising step may take")
    ] = 300.0
    generator_batch_size: Annotated[
        Count,
        Meta(description="most prompts in one run of the pipeline; above 1 the last bits may vary"),
    ] = 1
    generator_idle_seconds: Annotated[
        Seconds, Meta(description="how long the idle image generator keeps its memory")
    ] = 600.0
    generator_max_bytes: Annotated[
        Count,
        Meta(description="memory above which the generator is replaced, between two pictures"),
    ] = 16 * 1024**3
    result_labels: Annotated[
        int,
        Meta(
            ge=0,
            description="most labels whose probability a result lists, the most probable; 0 lists all",
        ),
    ] = 100
    gallery: Annotated[bool, Meta(description="whether outputs/index.html is made")] = True
    metrics_port: Annotated[
        int,
        Meta(ge=0, le=65535, description="this machine's port for Prometheus; 0 is none"),
    ] = 0
    metrics_file: Annotated[
        str,
        Meta(
            pattern=r"^$|\.prom$",
            description="a .prom file for node_exporter's textfile collector",
        ),
    ] = ""
    shared_root: Annotated[
        bool,
        Meta(
            description="whether users other than the daemon's may write its settings and state;"
            " for a root that is shared among equals"
        ),
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="what stderr shows")
    ] = "info"


def load(
    root: Path | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings for *root*.

    Args:
        root: The root; without one, only variables and flags are used.
        flags: Values of flags by setting; those that are None are ignored.
        environ: The environment.

    Raises:
        FluxdropError: A key or variable is unknown (the hint names the nearest known one), a value has
            the wrong type or range, or a file cannot be read; kind ``config``.
    """
    return Settings(**{key: found.value for key, found in sources(root, flags, environ).items()})


class Found(NamedTuple):
    """A setting that is not at its default, and the *place* that sets it."""

    value: Any
    place: str


def sources(
    root: Path | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Found]:
    """Return the settings that are not at their defaults, each with the place that decides it.

    Arguments and errors are those of `load`.
    """
    found: dict[str, Found] = {}
    if root is not None:
        file, model = root / FILE, Root(root).model_in_use
        found |= {key: Found(value, str(file)) for key, value in _from_file(file).items()}
        found |= {key: Found(value, "model use") for key, value in _model_in_use(model).items()}
    for key, value in _from_environment(environ).items():
        found[key] = Found(value, f"{PREFIX}{key.upper()}")
    for key, value in _from_flags(flags or {}).items():
        found[key] = Found(value, _flag(key))
    return found


def choose_model(root: Root, model: str) -> None:
    """Store *model* as the one that *root*'s daemon uses from its next start. Raise OSError."""
    durable.write(root.model_in_use, f"{model}\n".encode())


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with open_given(path) as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unread(path, error) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FluxdropError(f"{path} cannot be read: {error}.", kind="config") from error
    _refuse_unknown(values, Settings.__struct_fields__, path, "")
    pipelines = values.get("pipelines")
    for name, table in pipelines.items() if isinstance(pipelines, dict) else ():
        if isinstance(table, dict):
            _refuse_unknown(table, PipelineTable.__struct_fields__, path, f"pipelines.{name}.")
    return {key: _checked(key, value, f"{key} in {path}") for key, value in values.items()}


def _refuse_unknown(
    table: Mapping[str, Any], known: tuple[str, ...], path: Path, prefix: str
) -> None:
    for key in table:
        if key not in known:
            hint = _nearest(key, known, prefix)
            raise FluxdropError(
                f"{path} has the unknown key {prefix}{key}.", hint=hint, kind="config"
            )


def _model_in_use(path: Path) -> dict[str, Any]:
    try:
        return {"model": durable.read_own(path).decode().strip()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unread(path, error) from error
    except UnicodeDecodeError as error:
        raise FluxdropError(f"{path} cannot be read: {error}", kind="config") from error


def _unread(path: Path, error: OSError) -> FluxdropError:
    message = f"{path} cannot be read: {error.strerror}"
    return FluxdropError(message, hint=remedy_of(error), kind="config")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = [*(PREFIX + key.upper() for key in Settings.__struct_fields__), *OTHER_VARIABLES]
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            hint = _nearest(name, known)
            raise FluxdropError(
                f"{name} in the environment is not a setting.", hint=hint, kind="config"
            )
    values = {}
    for key in Settings.__struct_fields__:
        text = environ.get(PREFIX + key.upper())
        if text:
            name = f"{PREFIX}{key.upper()} in the environment"
            values[key] = _checked(key, text, name, strict=False)
    return values


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _checked(key, value, _flag(key)) for key, value in flags.items() if value is not None
    }


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean {prefix}{near[0]}?"
    return "`fluxdrop config` lists the keys, docs/generation.md those of a pipeline."


def _checked(key: str, value: Any, name: str, *, strict: bool = True) -> Any:
    annotation = _FIELD_TYPES[key]
    try:
        return msgspec.convert(value, annotation, strict=strict)
    except msgspec.ValidationError as error:
        raise FluxdropError(f"{name} is {value!r}: {str(error).lower()}.", kind="config") from error


_FIELD_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settings)}
