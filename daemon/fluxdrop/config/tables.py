"""The types of the settings: numbers with their bounds, and the tables of fluxdrop.toml."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# poll(2) can wait for 24 days at most.
Seconds = Annotated[float, Meta(gt=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1)]
SortByLabel = Literal["none", "link", "copy"]


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


class HooksTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[hooks]``: what is told of each job that ended (docs/hooks.md).

    *on_done* and *on_failed* are a command, as a list of its words, or the URL of a receiver; empty for none.
    *secret_file* has the secret that signs what URLs get. *timeout_seconds* is the longest that one command or one
    request may take.
    """

    on_done: list[str] | str = ""
    on_failed: list[str] | str = ""
    secret_file: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0


class FolderTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[folders."NAME"]``: what applies to the files that are dropped below inbox/NAME.

    What it does not name is as for the other files. *model* and *models* are as the setting ``model``; several
    models all answer, and the first one's answer is the result's own. *pipeline* is as the setting ``pipeline``; it
    and the seven that follow are defaults, which a prompt file overrides.
    """

    model: str | None = None
    models: Annotated[list[str], Meta(min_length=1, max_length=16)] | None = None
    pipeline: str | None = None
    negative_prompt: str | None = None
    steps: Annotated[int, Meta(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=100)] | None = None
    width: Annotated[int, Meta(ge=8, le=8192, multiple_of=8)] | None = None
    height: Annotated[int, Meta(ge=8, le=8192, multiple_of=8)] | None = None
    sampler: str | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    fast_jpeg: bool | None = None
    result_labels: Annotated[int, Meta(ge=0)] | None = None
    sort_by_label: SortByLabel | None = None

    @property
    def model_names(self) -> list[str]:
        """The models that answer; empty for the one in use."""
        return self.models or ([self.model] if self.model else [])

    def problem(self) -> str:
        """Check the values against each other; return what is wrong, as a sentence, or an empty string."""
        if self.model is not None and self.models is not None:
            return "it has both model and models"
        if self.model == "" or "" in self.model_names:
            return "the name of a model is empty"
        if len(set(self.model_names)) < len(self.model_names):
            return "models names one twice"
        if self.pipeline == "" or self.sampler == "":
            return "pipeline or sampler is empty"
        return ""
