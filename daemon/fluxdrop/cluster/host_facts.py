"""What a host says of itself, before it gets any work. This runs on the host."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec

import fluxdrop
from fluxdrop.cluster.host_pipelines import HostPipelines
from fluxdrop.cluster.messages import HostFacts
from fluxdrop.cluster.pipeline_cache import HostUnfit
from fluxdrop.cluster.pipeline_needs import Need
from fluxdrop.config import HostSettings

_PACKAGES = ("torch", "diffusers", "transformers")
_MIN_FREE_BYTES = 32 << 20
"""What pictures and the files of Ray need for a while."""


class _Gpu(NamedTuple):
    name: str
    driver: str


def facts(station_version: str, outlines: bytes) -> bytes:
    """Return this host's `HostFacts` as JSON.

    Args:
        station_version: The fluxdrop of the daemon. A host that has another one tells only its own.
        outlines: The `outline_of` each pipeline of the root by its name, as JSON.
    """
    version = fluxdrop.__version__
    if version != station_version:
        return msgspec.json.encode(HostFacts(version=version))
    try:
        pipelines = HostPipelines.of_this_host()
    except HostUnfit as error:
        return msgspec.json.encode(HostFacts(version=version, problem=str(error)))
    host = pipelines.settings
    gpu = _gpu() if host.device != "cpu" else None
    return msgspec.json.encode(
        HostFacts(
            version=version,
            gpu=gpu.name if gpu else "cpu",
            host_class=_host_class(gpu, host),
            problem=_missing_packages() or disk_problem(),
            missing={
                name: reason
                for name, need in msgspec.json.decode(outlines, type=dict[str, Need]).items()
                if (reason := pipelines.obstacle(need))
            },
        )
    )


def disk_problem() -> str:
    """Return, as a sentence, that the disk of the temporary folder is full; an empty string if it is not."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free >= _MIN_FREE_BYTES:
        return ""
    return f"Its disk is full: {free >> 20} MB are free in {folder}."


def _missing_packages() -> str:
    missing = [name for name in _PACKAGES if not _version(name)]
    if not missing:
        return ""
    return (
        f"The packages of the extra 'generate' are not all installed there: {', '.join(missing)}."
    )


def _host_class(gpu: _Gpu | None, host: HostSettings) -> str:
    """Return the class: what the bits of a picture depend on besides its parameters and the pipeline."""
    # On CPUs, torch chooses its kernels by their kind, and divides the work by their number.
    cpus = [_processor(), f"{len(os.sched_getaffinity(0))} CPUs"]
    hardware = [gpu.name, f"driver {gpu.driver}"] if gpu else cpus
    versions = [f"{name} {_version(name)}" for name in _PACKAGES[:2]]
    return ", ".join([*hardware, *versions, *host.computing()])


def _gpu() -> _Gpu | None:
    """Return the first GPU that nvidia-smi lists; None if there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        name, driver = done.stdout.splitlines()[0].rsplit(", ", 1)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    return _Gpu(name, driver)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "cpu"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
