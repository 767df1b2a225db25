"""An SDXL-shaped pipeline with random weights: ``python -m benchmarks.gpu_pipelines FOLDER``.

Its networks have the sizes of stable-diffusion-xl-base-1.0 (the config.json files on
https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0), so that it costs the same time and memory.
The tokenizer is the embedded pipeline's, so no hub is needed.
"""

# mypy: disable-error-code="no-untyped-call, attr-defined"

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

import fluxdrop

_EMBEDDED = Path(fluxdrop.__file__).parent / "models" / "shapes-diffusion"


def sdxl() -> Any:
    """Return the pipeline in float16, on the default device."""
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=1024,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    text_encoder = CLIPTextModel(_text(768, 12, 12))
    text_encoder_2 = CLIPTextModelWithProjection(_text(1280, 32, 20))
    tokenizer = CLIPTokenizer.from_pretrained(_EMBEDDED / "tokenizer")
    pipe = StableDiffusionXLPipeline(
        unet=unet,
        vae=vae,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading"),
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
    )
    return pipe.to(torch.float16)


def _text(width: int, layers: int, heads: int) -> CLIPTextConfig:
    known = json.loads((_EMBEDDED / "text_encoder" / "config.json").read_text())
    same = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        **{key: known[key] for key in same},
    )


def main(folder: Path) -> None:
    """Write the pipeline as the folder *folder*."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        pipe = sdxl()
    pipe.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
