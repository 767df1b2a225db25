"""The types of the settings: numbers with their bounds, and the tables of fluxdrop.toml."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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
