"""Load a diffusers pipeline: choose its class, device, dtype and memory-saving options.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers

from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import failures, sources, threads
from fluxdrop.generate.late_modules import import_late
from fluxdrop.generate.sources import PipelineSource

# AutoPipelineForText2Image, which chooses these for themselves, imports all pipelines of diffusers to choose one.
_COMMON = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)

# All schedulers of diffusers import it, for the Beta schedules alone.
import_late("scipy.stats")


class Loaded(NamedTuple):
    """A loaded pipeline, its device and its dtype."""

    pipe: Any
    device: str
    dtype: torch.dtype


def load(name: str, table: PipelineTable, source: PipelineSource) -> Loaded:
    """Load a pipeline, and make torch use deterministic algorithms.

    Args:
        name: The pipeline's name, for errors.
        table: Its configuration.
        source: Where its weights are.

    Raises:
        FluxdropError: Kind ``pipeline``, when it cannot be loaded.
        Exception: What torch raises when the memory does not suffice; see `failures.out_of_memory`.
    """
    for library in (diffusers, transformers):
        logging: Any = library.utils.logging
        logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling each new tensor helps to find code that reads memory before it is written, and costs time.
    determinism: Any = torch.utils.deterministic
    determinism.fill_uninitialized_memory = False
    device = _device(name, table.device)
    threads.prepare(device)
    try:
        if source.single_file:
            pipe, dtype = _from_single_file(source, table, device)
        else:
            base: Any = diffusers.DiffusionPipeline
            options = {"revision": source.revision, "local_files_only": source.local_files_only}
            config = base.load_config(source.location, **options)
            dtype = _dtype(table.dtype, device, config)
            common = config.get("_class_name") in _COMMON
            chosen = config["_class_name"] if common else "AutoPipelineForText2Image"
            pipe = getattr(diffusers, chosen).from_pretrained(
                source.location, use_safetensors=True, dtype=dtype, **options
            )
        _move_to_device(pipe, table, device)
    except FluxdropError:
        raise
    except Exception as error:
        if failures.out_of_memory(error):
            raise
        if isinstance(error, ValueError) and "AutoPipeline" in str(error):
            raise _no_text_to_image(name) from error
        raise FluxdropError(
            f"The pipeline {name} cannot be loaded: {failures.first_line(error)}",
            hint="The log has the traceback.",
            kind="pipeline",
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return Loaded(pipe, device, dtype)


def set_memory_saving(pipe: Any, *, attention_slicing: bool, vae_tiling: bool) -> None:
    """Turn the options of *pipe* that save memory, and cost time, on or off, as far as it has them.

    *vae_tiling* also turns VAE slicing on or off.
    """
    if attention_slicing:
        pipe.enable_attention_slicing()
    else:
        pipe.disable_attention_slicing()
    vae = getattr(pipe, "vae", None)
    for part in ("tiling", "slicing"):
        switch = getattr(vae, f"{'enable' if vae_tiling else 'disable'}_{part}", None)
        if switch is not None:
            switch()


def free_memory() -> None:
    """Release the accelerator's memory that torch caches."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _device(name: str, wanted: str) -> str:
    """Return the device to use; raise if the *wanted* one is not available."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(device for device, is_available in available.items() if is_available)
    if not available[wanted]:
        raise FluxdropError(
            f"The pipeline {name} is to run on {wanted}, which torch does not find here.",
            hint='Install a torch for it, or set device = "auto" for the pipeline.',
            kind="pipeline",
        )
    return wanted


def _dtype(wanted: str, device: str, config: dict[str, Any]) -> torch.dtype:
    """Return the dtype to compute in: the configured one, else float32, or on CUDA a half precision.

    On CUDA that is float16, or bfloat16 for large transformers, whose activations overflow float16.
    """
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype
    if device != "cuda":
        return torch.float32
    is_transformer = "transformer" in config and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if is_transformer else torch.float16


def _from_single_file(
    source: PipelineSource, table: PipelineTable, device: str
) -> tuple[Any, torch.dtype]:
    """Load a single .safetensors file; return the pipeline and its dtype."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    config_source = source.config or _inferred_config(source)
    options = {
        "revision": config_source.revision,
        "local_files_only": config_source.local_files_only,
    }
    base: Any = diffusers.DiffusionPipeline
    config = base.load_config(config_source.location, **options)
    classes = {cls.__name__: cls for cls in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    pipeline_class = classes.get(config["_class_name"])
    if pipeline_class is None:
        raise _no_text_to_image(source.model)
    dtype = _dtype(table.dtype, device, config)
    return pipeline_class.from_single_file(
        source.location, config=config_source.location, dtype=dtype, **options
    ), dtype


def _inferred_config(source: PipelineSource) -> PipelineSource:
    """Return the source of the configuration that diffusers infers from the file's weights.

    Raises:
        FluxdropError: Kind ``pipeline``, when that repository is not available.
    """
    from diffusers.loaders import single_file_utils

    utils: Any = single_file_utils
    weights = utils.load_single_file_checkpoint(source.location, local_files_only=True)
    repository: str = utils.fetch_diffusers_config(weights)["pretrained_model_name_or_path"]
    try:
        return sources.find(repository)
    except FluxdropError as error:
        raise FluxdropError(
            f"{Path(source.location).name} looks like {repository}, but the configuration of that"
            f" cannot be had: {error.message}",
            hint="Name a diffusers folder that has it: config = FOLDER in [pipelines.NAME].",
            kind="pipeline",
        ) from error


def _move_to_device(pipe: Any, table: PipelineTable, device: str) -> None:
    """Move *pipe* to *device*, or turn offloading on, and set the memory-saving options."""
    if table.offload == "none" or device == "cpu":
        pipe.to(device)
    elif table.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_sequential_cpu_offload(device=device)
    set_memory_saving(pipe, attention_slicing=table.attention_slicing, vae_tiling=table.vae_tiling)


def _no_text_to_image(name: str) -> FluxdropError:
    return FluxdropError(
        f"{name} is not a text-to-image pipeline that diffusers knows.",
        hint="Choose one that AutoPipelineForText2Image can load.",
        kind="pipeline",
    )
