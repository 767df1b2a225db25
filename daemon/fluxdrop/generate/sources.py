"""Where a pipeline comes from: embedded in the package, a local folder or file, or the Hugging
Face hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.resources import expanded

INDEX = "model_index.json"
DEFAULTS = "pipeline.toml"

_EMBEDDED = Path(__file__).parents[1] / "models"
_HUB_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
_HUB_SECONDS = 10.0


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder's pipeline.toml: what is recommended for the model where a prompt names nothing.

    ``fixed_size`` says that the model was made for this width and height only.
    """

    steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    fixed_size: bool = False


class PipelineSource(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline that can be loaded: *location* is what ``from_pretrained`` takes, or a single
    file, for which *config* is the source of its configuration where one is named.
    """

    location: str
    single_file: bool = False
    config: PipelineSource | None = None
    model: str
    revision: str | None = None
    local_files_only: bool = True
    defaults: Defaults = Defaults()


def embedded() -> list[str]:
    """The names of the pipelines that come with the package."""
    return sorted(path.parent.name for path in _EMBEDDED.glob(f"*/{INDEX}"))


def find(name: str, revision: str | None = None, config: str | None = None) -> PipelineSource:
    """The source that *name* means: an embedded pipeline, a folder, a single file, or a hub id.

    A hub id may be followed by ``@`` and a revision; *config* names the source of a single file's
    configuration. Raises FluxdropError of kind ``pipeline`` where there is none, or none that may
    be loaded.
    """
    if name in embedded():
        return _from_folder(_EMBEDDED / name)
    folder = expanded(name)
    if folder.is_dir():
        return _from_folder(folder)
    if folder.is_file():
        return _from_file(folder, config)
    match = _HUB_ID.fullmatch(name)
    if match is None or folder.is_absolute() or name.startswith("."):
        raise _refusal(
            f"There is no pipeline {name}: no such folder.",
            f"pipeline takes an embedded name ({', '.join(embedded())}), the folder of a diffusers"
            " pipeline, a .safetensors file, or a hub id such as stabilityai/sd-turbo.",
        )
    return _from_hub(match["id"], match["revision"] or revision)


def _from_file(path: Path, config: str | None) -> PipelineSource:
    if path.suffix in _PICKLES:
        _refuse_pickles(str(path), [path.name], set())
    if path.suffix != ".safetensors":
        raise _refusal(f"{path} is no pipeline: a single file has to be .safetensors.")
    config_source = find(config) if config else None
    return PipelineSource(
        location=str(path),
        single_file=True,
        config=config_source,
        model=path.stem,
        defaults=config_source.defaults if config_source else Defaults(),
    )


def _from_folder(folder: Path) -> PipelineSource:
    try:
        index = json.loads((folder / INDEX).read_bytes())
        components = {key for key in index if not key.startswith("_")}
    except FileNotFoundError:
        raise _refusal(
            f"{folder} is not a diffusers pipeline: it has no {INDEX}.",
            "Save one there with pipeline.save_pretrained(FOLDER).",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise _refusal(f"{folder / INDEX} cannot be read: {error}.") from error
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    _refuse_pickles(str(folder), files, components)
    return PipelineSource(
        location=str(folder), model=folder.resolve().name, defaults=_read_defaults(folder)
    )


def _read_defaults(folder: Path) -> Defaults:
    path = folder / DEFAULTS
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Defaults)
    except FileNotFoundError:
        return Defaults()
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise _refusal(f"{path} cannot be read: {error}.") from error


def _from_hub(repository: str, revision: str | None) -> PipelineSource:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(repository, revision=revision, timeout=_HUB_SECONDS)
    except GatedRepoError as error:
        raise _refusal(
            f"The hub gives {repository} only to those who accepted its terms.",
            "Accept them on its page, then set HF_TOKEN.",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise _refusal(
            f"There is no pipeline {repository}: no such folder, and none of that name on the hub.",
            "Check the spelling; a private one needs HF_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        raise _refusal(f"The hub's {repository} has no revision {revision}.") from error
    # What a lost network raises depends on the hub library's HTTP client, and changed with it.
    except Exception as error:
        return _from_cache(repository, revision, error)
    files = [sibling.rfilename for sibling in info.siblings or ()]
    if INDEX not in files:
        raise _refusal(f"The hub's {repository} is not a diffusers pipeline: it has no {INDEX}.")
    _refuse_pickles(repository, files, set())
    return PipelineSource(
        location=repository,
        model=repository,
        revision=info.sha,
        local_files_only=False,
    )


def _from_cache(repository: str, revision: str | None, reason: Exception) -> PipelineSource:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, INDEX, revision=revision)
    if not isinstance(cached, str):
        raise _refusal(
            f"The pipeline {repository} is not on this machine, and the hub cannot be reached"
            f" ({type(reason).__name__}).",
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a folder.",
        ) from reason
    # .../snapshots/COMMIT/model_index.json
    return PipelineSource(location=repository, model=repository, revision=Path(cached).parent.name)


def _refuse_pickles(name: str, files: Iterable[str], components: set[str]) -> None:
    """Refuse a pipeline of which a component, or everything, is there as pickle only.

    A pickle runs code of its maker's choice when it is loaded.
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
            raise _refusal(
                f"{name} has pickled weights only ({file}), which fluxdrop never loads.",
                "Get it as safetensors, or convert it once where you trust its maker:"
                " pipeline.save_pretrained(FOLDER, safe_serialization=True).",
            )


def _refusal(message: str, hint: str = "") -> FluxdropError:
    return FluxdropError(message, hint=hint, kind="pipeline")
