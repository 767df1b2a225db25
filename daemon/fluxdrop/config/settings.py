"""The settings: their names, types, defaults and descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fluxdrop.config.tables import (
    Count,
    FolderTable,
    HooksTable,
    PipelineTable,
    Seconds,
    SortByLabel,
)


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
    folders: Annotated[
        dict[str, FolderTable],
        Meta(
            description='tables `[folders."NAME"]` for what is dropped below inbox/NAME'
            " ([docs](docs/folders.md))"
        ),
    ] = {}
    warm_models: Annotated[
        Count,
        Meta(description="most models that stay loaded for folders and replays, beside `model`"),
    ] = 8
    warm_models_max_bytes: Annotated[
        Count,
        Meta(description="memory of these models above which the least recently used one ends"),
    ] = 4 * 1024**3
    loras: Annotated[
        str, Meta(description="the folder of the LoRA files that `<lora:NAME:WEIGHT>` means")
    ] = ""
    batch_size: Annotated[Count, Meta(description="most pictures in one forward pass")] = 32
    settle_seconds: Annotated[
        Literal["auto"] | Seconds,
        Meta(
            description="how long a file must not change before it is taken as whole; a picture that was closed, half"
            " of it; auto is 2, and 10 on network shares, which do not tell who is writing"
        ),
    ] = "auto"
    incomplete_seconds: Annotated[
        Seconds, Meta(description="how long an incomplete file may stand still before it fails")
    ] = 60.0
    scan_seconds: Annotated[
        Seconds, Meta(description="how often the inbox is read, whatever the events say")
    ] = 30.0
    ignore: Annotated[
        list[str],
        Meta(
            description='more names of files and folders that are left alone, such as `["*.part2", "drafts"]`; `*` and'
            " `?` stand for other letters"
        ),
    ] = []
    max_file_bytes: Annotated[Count, Meta(description="largest picture file")] = 256 * 1024**2
    max_pixels: Annotated[Count, Meta(description="most pixels a picture may have")] = 100_000_000
    fast_jpeg: Annotated[
        bool,
        Meta(
            description="whether JPEGs that the model sees at a quarter of their size or less are decoded smaller,"
            " which is faster; the answers then differ a little"
        ),
    ] = False
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
    cluster: Annotated[
        str,
        Meta(
            pattern=r"^$|^auto$|^[^\s:/]+:[0-9]{1,5}$",
            description="the Ray cluster whose hosts make the pictures: auto for the one that this machine belongs to,"
            " or HOST:PORT of its head; without one this machine makes them",
        ),
    ] = ""
    cluster_most: Annotated[
        int,
        Meta(
            ge=0,
            description="most pictures, or runs of several, that the cluster makes for this root at a time; 0 is as"
            " many as it can",
        ),
    ] = 0
    hosts: Annotated[
        Literal["any", "alike"],
        Meta(
            description="which hosts of the cluster are used: any, or only those of one class, on which the same seed"
            " gives the same bytes"
        ),
    ] = "any"
    predict_on: Annotated[
        Literal["station", "cluster"],
        Meta(
            description="where models predict: on this machine, or on the cluster's hosts, for heavy models"
        ),
    ] = "station"
    result_labels: Annotated[
        int,
        Meta(
            ge=0,
            description="most labels whose probability a result lists, the most probable; 0 lists all",
        ),
    ] = 100
    sort_by_label: Annotated[
        SortByLabel,
        Meta(
            description="whether each picture also appears below outputs/by-label/LABEL/, as a hard"
            " link or as a copy"
        ),
    ] = "none"
    results_csv: Annotated[
        bool,
        Meta(description="whether all results are also kept as a table, results.csv in the root"),
    ] = False
    hooks: Annotated[
        HooksTable,
        Meta(
            description="table `[hooks]`: a command or URL that gets each result or failure ([docs](docs/hooks.md))"
        ),
    ] = HooksTable()
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
