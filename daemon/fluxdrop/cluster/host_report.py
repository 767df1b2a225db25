"""What `fluxdrop doctor --cluster` finds out on a host. This runs on the host, and does not import Ray."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from fluxdrop.cluster.examined import HostReport, PictureReport, PipelineReport
from fluxdrop.cluster.hand import forget_ray_threads
from fluxdrop.cluster.host_pipelines import HostPipelines
from fluxdrop.cluster.pipeline_digest import DigestMemory, Manifest, manifest_of
from fluxdrop.cluster.pipeline_needs import Content, Embedded, Need, OnHub
from fluxdrop.config import PipelineTable, Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import sources
from fluxdrop.generate.messages import Load, PictureOrder
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.generate.pipeline_process import PipelineProcess, limits_of
from fluxdrop.ownership import load_trusted_host
from fluxdrop.provision.find import data_dir

_PACKAGES = ("fluxdrop", "torch", "diffusers", "transformers", "ray")
_PICTURE = PromptParameters(prompt="a red circle", steps=2, seed=1)


def clock() -> float:
    """Return this host's time, in seconds since 1970."""
    return time.time()


def report(needs: bytes) -> bytes:
    """Return this host's `HostReport` as JSON.

    Args:
        needs: What the root's pipelines are, by name, as JSON of `Need`.
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    wanted = msgspec.json.decode(needs, type=dict[str, Need])
    problem, pipelines, folder = "", {}, data_dir()
    try:
        found = HostPipelines(load_trusted_host())
        folder = found.cache_folder
        pipelines = {name: _pipeline(need, found) for name, need in wanted.items()}
    except FluxdropError as error:
        problem = f"{error.message}. {error.hint}".strip()
    folder = _existing(folder)
    return msgspec.json.encode(
        HostReport(
            versions=versions,
            disk=str(folder),
            free_bytes=shutil.disk_usage(folder).free,
            token=os.environ.get("RAY_AUTH_MODE") == "token",
            tls=os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"),
            pipelines=pipelines,
            problem=problem,
        )
    )


def picture() -> bytes:
    """Make a picture with the embedded pipeline as this host makes all; return the `PictureReport` as JSON."""
    forget_ray_threads()
    name = sources.embedded()[0]
    started = time.monotonic()
    try:
        table = load_trusted_host().table(name, PipelineTable(source=name))
        order = PictureOrder(parameters=_PICTURE, prompt=_PICTURE.prompt)
        with closing(PipelineProcess(limits_of(Settings()))) as process:
            (image,) = process.run(Load(name=name, table=table), [order], [])
    except FluxdropError as error:
        return msgspec.json.encode(PictureReport(problem=error.message))
    digest = hashlib.sha256(image.png).hexdigest()
    return msgspec.json.encode(PictureReport(sha256=digest, seconds=time.monotonic() - started))


def digest_of(need: Need, memory: DigestMemory) -> str:
    """Return what a pipeline is in one word: its digest in hex, or its repository and commit on the hub."""
    match need:
        case Embedded(name):
            return _embedded(name, memory).digest
        case OnHub(repository, commit):
            return f"{repository}@{commit}"
        case Content(manifest):
            return manifest.digest


def _pipeline(need: Need, pipelines: HostPipelines) -> PipelineReport:
    try:
        digest = digest_of(need, pipelines.memory)
    except FluxdropError as error:
        return PipelineReport(problem=error.message)
    path = pipelines.find(need.manifest) if isinstance(need, Content) else None
    if path is not None:
        return PipelineReport(digest=digest, place=str(path))
    if problem := pipelines.obstacle(need):
        return PipelineReport(digest=digest, problem=problem)
    match need:
        case Embedded():
            return PipelineReport(digest=digest, place="embedded")
        case OnHub():
            return PipelineReport(digest=digest, place="hub")
        case Content(manifest):
            return PipelineReport(digest=digest, place="station", size=manifest.size)


def _embedded(name: str, memory: DigestMemory) -> Manifest:
    return manifest_of("pipeline", Path(sources.find(name).location), memory)


def _existing(folder: Path) -> Path:
    """Return *folder*, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
