"""A bare diffusers loop: ``python -m benchmarks.diffusers_loop PIPELINE SIZE DEVICE BATCH COUNT FOLDER``.

It is what a user would write instead of fluxdrop. It makes COUNT pictures of SIZE x SIZE, BATCH at a time, after one
run that is not measured, saves them as PNGs, and prints the seconds per picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image


def main(pipeline: str, size: int, device: str, batch: int, count: int, folder: Path) -> None:
    """Make *count* pictures in *folder*, *batch* at a time."""
    auto: Any = AutoPipelineForText2Image
    dtype = torch.float16 if device == "cuda" else torch.float32
    pipe = auto.from_pretrained(pipeline, dtype=dtype, local_files_only=True).to(device)
    pipe.set_progress_bar_config(disable=True)

    def make(first: int) -> None:
        seeds = range(first, first + batch)
        images = pipe(
            prompt=["a red circle on a white background"] * batch,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=20,
            guidance_scale=5.0,
            width=size,
            height=size,
        ).images
        for seed, image in zip(seeds, images, strict=True):
            image.save(folder / f"{seed}.png")

    make(10_000)
    started = perf_counter()
    for first in range(0, count, batch):
        make(first)
    print((perf_counter() - started) / max(count, 1))


if __name__ == "__main__":
    name, size, device, batch, count, folder = sys.argv[1:]
    main(name, int(size), device, int(batch), int(count), Path(folder))
