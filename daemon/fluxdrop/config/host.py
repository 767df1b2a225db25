"""The settings of a GPU host, from its own file: they win over those of the stations that use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from fluxdrop.config.reading import check_table, read_toml
from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import Count, PipelineTable
from fluxdrop.errors import FluxdropError

HOST_FILE = Path("/etc/fluxdrop/host.toml")
HOST_VARIABLE = "FLUXDROP_HOST_CONFIG"
"""The variable that names another file."""

_MISSING_HINT = f"Correct {HOST_VARIABLE}, or remove it to use {HOST_FILE} where there is one."


class HostPipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[pipelines.NAME]``: how this host runs the stations' pipeline NAME.

    The keys are those of a pipeline's table in fluxdrop.toml; what is None is as in the file's own keys, else as the
    station says.
    """

    device: Literal["auto", "cuda", "mps", "cpu"] | None = None
    dtype: Literal["auto", "float16", "bfloat16", "float32"] | None = None
    offload: Literal["none", "model", "sequential"] | None = None
    attention_slicing: bool | None = None
    vae_tiling: bool | None = None


class HostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What host.toml may have."""

    device: Literal["auto", "cuda", "mps", "cpu"] | None = None
    dtype: Literal["auto", "float16", "bfloat16", "float32"] | None = None
    offload: Literal["none", "model", "sequential"] | None = None
    attention_slicing: bool | None = None
    vae_tiling: bool | None = None
    pipelines: dict[str, HostPipeline] = {}
    generator_max_bytes: Count | None = None
    """The memory above which a generator is replaced, between two pictures."""
    worker_max_bytes: Count | None = None
    """The memory above which a Julia worker is replaced, between two batches."""
    engine: Literal["auto", "julia", "juliacall", "onnxruntime"] | None = None
    """What runs the models of a station with ``predict_on = "cluster"``."""
    model_device: Literal["auto", "cpu", "gpu"] | None = None
    """Where Flux runs them: the setting ``device`` of a station."""
    folders: list[str] = []
    """Folders with pipelines, LoRA files and model bundles, which are used where they are the station's."""
    cache: str = ""
    """The folder of what came from stations; below the data folder if it is empty."""
    cache_max_bytes: Count = 100 * 1024**3
    hub: bool = False
    """Whether this host may load pipelines from the Hugging Face hub, of the commit that the station names."""

    def table(self, name: str, table: PipelineTable) -> PipelineTable:
        """Return *table*, the station's for the pipeline *name*, with what this host says otherwise."""
        own = self.pipelines.get(name, HostPipeline())
        changes = {}
        for key in HostPipeline.__struct_fields__:
            found = [value for one in (own, self) if (value := getattr(one, key)) is not None]
            if found:
                changes[key] = found[0]
        return msgspec.structs.replace(table, **changes)

    def computing(self) -> list[str]:
        """Return what this host computes otherwise than stations say, such as ``dtype float16``: it may change bits."""
        own = [("", self), *((f"{name}: ", one) for name, one in sorted(self.pipelines.items()))]
        return [
            f"{prefix}{key} {value}"
            for prefix, one in own
            for key in HostPipeline.__struct_fields__
            if key != "device" and (value := getattr(one, key)) is not None
        ]

    def applied(self, settings: Settings) -> Settings:
        """Return the *settings* of a station with this host's limits of memory, engine and device of models."""
        changes = {
            "generator_max_bytes": self.generator_max_bytes,
            "worker_max_bytes": self.worker_max_bytes,
            "engine": self.engine,
            "device": self.model_device,
        }
        return msgspec.structs.replace(
            settings, **{key: value for key, value in changes.items() if value is not None}
        )


def host_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of this host's file: that in FLUXDROP_HOST_CONFIG, else /etc/fluxdrop/host.toml."""
    return Path(environ.get(HOST_VARIABLE) or HOST_FILE)


def read_host_settings(file: Path) -> HostSettings:
    """Return the settings in *file*; the defaults if there is no /etc/fluxdrop/host.toml.

    Raises:
        FluxdropError: A file that FLUXDROP_HOST_CONFIG names is missing, the file cannot be read, or has an unknown
            key (the hint names the nearest known one) or a value of a wrong type or range; kind ``config``.
    """
    try:
        values = read_toml(file)
    except FileNotFoundError as error:
        if file == HOST_FILE:
            return HostSettings()
        message = f"{file}, which {HOST_VARIABLE} names, does not exist"
        raise FluxdropError(message, hint=_MISSING_HINT, kind="config") from error
    pipelines = values.get("pipelines")
    for name, table in pipelines.items() if isinstance(pipelines, dict) else ():
        check_table(table, HostPipeline, file, f"pipelines.{name}")
    check_table(values, HostSettings, file)
    return msgspec.convert(values, HostSettings)
