"""A bare diffusers loop: ``python -m benchmarks.gpu_loop PIPELINE BATCH COUNT FOLDER``.

It is what a user would write instead of fluxdrop. It makes COUNT pictures, BATCH at a time, after one run that is not
measured, saves them as PNGs, and prints the seconds per picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image


def main(pipeline: str, batch: int, count: int, folder: Path) -> None:
    """Make *count* pictures in *folder*, *batch* at a time."""
    auto: Any = AutoPipelineForText2Image
    pipe = auto.from_pretrained(pipeline, dtype=torch.float16, local_files_only=True).to("cuda")
    pipe.set_progress_bar_config(disable=True)

    def make(first: int) -> None:
        seeds = range(first, first + batch)
        images = pipe(
            prompt=["a red circle on a white background"] * batch,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=20,
            guidance_scale=5.0,
            width=1024,
            height=1024,
        ).images
        for seed, image in zip(seeds, images, strict=True):
            image.save(folder / f"{seed}.png")

    make(10_000)
    started = perf_counter()
    for first in range(0, count, batch):
        make(first)
    print((perf_counter() - started) / count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
