"""Find a pipeline: embedded in the package, in a local folder or file, or on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.hub import HUB_ID, HUB_SECONDS, HubUnreachable, hub_refusals
from fluxdrop.resources import expanded

INDEX = "model_index.json"
DEFAULTS = "pipeline.toml"

_EMBEDDED = Path(__file__).parents[1] / "models"
_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder's pipeline.toml: the values recommended for the model, for what a prompt leaves open."""

    steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    fixed_size: bool = False
    """Whether the model was made for this width and height only."""


class PipelineSource(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline that can be loaded."""

    location: str
    """What ``from_pretrained`` takes, or the path of a single file."""
    single_file: bool = False
    config: PipelineSource | None = None
    """The source of a single file's configuration, where one is named."""
    model: str
    """The embedded name, the name of the folder or file, or the hub id."""
    revision: str | None = None
    """The commit on the hub; None for a local pipeline."""
    local_files_only: bool = True
    defaults: Defaults = Defaults()


def embedded() -> list[str]:
    """Return the names of the pipelines that come with the package, sorted."""
    return sorted(path.parent.name for path in _EMBEDDED.glob(f"*/{INDEX}"))


def find(name: str, revision: str | None = None, config: str | None = None) -> PipelineSource:
    """Find the pipeline *name*.

    Args:
        name: An embedded pipeline, a folder, a single file, or a hub id, which may be followed by
            ``@`` and a revision.
        revision: The revision of a hub id that has none itself.
        config: The source of a single file's configuration, if one is named.

    Raises:
        FluxdropError: Kind ``pipeline``, when there is no such pipeline, or none that may be loaded.
    """
    if name in embedded():
        return _from_folder(_EMBEDDED / name)
    folder = expanded(name)
    if folder.is_dir():
        return _from_folder(folder)
    if folder.is_file():
        return _from_file(folder, config)
    match = HUB_ID.fullmatch(name)
    if match is None or folder.is_absolute() or name.startswith("."):
        raise _source_error(
            f"There is no pipeline {name}: no such folder.",
            f"pipeline takes an embedded name ({', '.join(embedded())}), the folder of a diffusers"
            " pipeline, a .safetensors file, or a hub id such as stabilityai/sd-turbo.",
        )
    return _from_hub(match["id"], match["revision"] or revision)


def _from_file(path: Path, config: str | None) -> PipelineSource:
    """Return the pipeline in the single file *path*."""
    if path.suffix in _PICKLES:
        _check_pickles(str(path), [path.name], set())
    if path.suffix != ".safetensors":
        raise _source_error(
            f"{path} is not a pipeline: a single file has to be a .safetensors file."
        )
    config_source = find(config) if config else None
    return PipelineSource(
        location=str(path),
        single_file=True,
        config=config_source,
        model=path.stem,
        defaults=config_source.defaults if config_source else Defaults(),
    )


def _from_folder(folder: Path) -> PipelineSource:
    """Return the pipeline in the diffusers folder *folder*."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        components = {key for key in index if not key.startswith("_")}
    except FileNotFoundError:
        raise _source_error(
            f"{folder} is not a diffusers pipeline: it has no {INDEX}.",
            "Save one there with pipeline.save_pretrained(FOLDER).",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise _source_error(f"{folder / INDEX} cannot be read: {error}.") from error
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    _check_pickles(str(folder), files, components)
    return PipelineSource(
        location=str(folder), model=folder.resolve().name, defaults=_read_defaults(folder)
    )


def _read_defaults(folder: Path) -> Defaults:
    """Return the folder's pipeline.toml, or no defaults if there is none."""
    path = folder / DEFAULTS
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Defaults)
    except FileNotFoundError:
        return Defaults()
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise _source_error(f"{path} cannot be read: {error}.") from error


def _from_hub(repository: str, revision: str | None) -> PipelineSource:
    """Return the pipeline *repository* of the hub, or of its local cache when the hub cannot be reached."""
    from huggingface_hub import HfApi

    missing = f"There is no pipeline {repository}: no such folder, and none of that name on the hub"
    try:
        with hub_refusals(repository, revision, missing=missing, kind="pipeline"):
            info = HfApi().model_info(repository, revision=revision, timeout=HUB_SECONDS)
    except HubUnreachable as error:
        return _from_cache(repository, revision, error)
    files = [sibling.rfilename for sibling in info.siblings or ()]
    if INDEX not in files:
        raise _source_error(
            f"The hub's {repository} is not a diffusers pipeline: it has no {INDEX}."
        )
    _check_pickles(repository, files, set())
    return PipelineSource(
        location=repository,
        model=repository,
        revision=info.sha,
        local_files_only=False,
    )


def _from_cache(repository: str, revision: str | None, reason: HubUnreachable) -> PipelineSource:
    """Return the pipeline in the hub's local cache; raise if there is none, with *reason*."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, INDEX, revision=revision)
    if not isinstance(cached, str):
        raise _source_error(
            f"The pipeline {repository} is not on this machine, and the hub cannot be reached"
            f" ({reason}).",
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a folder.",
        ) from reason
    # .../snapshots/COMMIT/model_index.json
    return PipelineSource(location=repository, model=repository, revision=Path(cached).parent.name)


def _check_pickles(name: str, files: Iterable[str], components: set[str]) -> None:
    """Check that a pipeline has no weights that exist as pickle only.

    Loading a pickle runs any code that its author put into it.

    Args:
        name: The pipeline's name, for errors.
        files: The paths of all its files.
        components: The folders whose weights are loaded; if empty, one .safetensors file is enough.

    Raises:
        FluxdropError: Kind ``pipeline``, when a component, or the whole pipeline, is pickled only.
    """
    pickled: dict[str, str] = {}
    safe = set()
    for file in files:
        path = PurePosixPath(file)
        if path.suffix == ".safetensors":
            safe.add(str(path.parent))
        elif path.suffix in _PICKLES:
            pickled[str(path.parent)] = file
    for folder, file in sorted(pickled.items()):
        if not safe or (folder in components and folder not in safe):
            raise _source_error(
                f"{name} has pickled weights only ({file}), which fluxdrop never loads.",
                "Get it as safetensors, or convert it once where you trust its maker:"
                " pipeline.save_pretrained(FOLDER, safe_serialization=True).",
            )


def _source_error(message: str, hint: str = "") -> FluxdropError:
    return FluxdropError(message, hint=hint, kind="pipeline")
