"""Tiny pipelines with random weights, made of configurations alone: `python tiny_pipelines.py FOLDER`.

They run in a process of their own, so that torch never enters the tests'. Sizes are those of
diffusers' own fast tests; the tokenizer is the embedded pipeline's.
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
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

import fluxdrop

EMBEDDED = Path(fluxdrop.__file__).parent / "models" / "shapes-diffusion"


def clip(cls: Any, **options: Any) -> Any:
    known = json.loads((EMBEDDED / "text_encoder" / "config.json").read_text())
    same = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
    return cls(
        CLIPTextConfig(
            hidden_size=32,
            intermediate_size=37,
            num_attention_heads=4,
            num_hidden_layers=2,
            **{key: known[key] for key in same},
            **options,
        )
    )


def vae(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(4,),
        layers_per_block=1,
        norm_num_groups=1,
        **options,
    )


def tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")


def t5() -> dict[str, Any]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(chr(ord("a") + n), -3.0) for n in range(26)]
    config = T5Config(
        vocab_size=len(pieces) + 100, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return {"encoder": T5EncoderModel(config), "tokenizer": T5Tokenizer(vocab=pieces)}


def sdxl() -> Any:
    unet = UNet2DConditionModel(
        block_out_channels=(2, 4),
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=1,
    )
    return StableDiffusionXLPipeline(
        unet=unet,
        vae=vae(latent_channels=4),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading"),
        text_encoder=clip(CLIPTextModel, projection_dim=32),
        text_encoder_2=clip(CLIPTextModelWithProjection, projection_dim=32),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
    )


def sd3() -> Any:
    third = t5()
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=vae(latent_channels=4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip(CLIPTextModelWithProjection, projection_dim=32),
        text_encoder_2=clip(CLIPTextModelWithProjection, projection_dim=32),
        text_encoder_3=third["encoder"],
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=third["tokenizer"],
    )


def flux() -> Any:
    second = t5()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        transformer=transformer,
        vae=vae(latent_channels=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=clip(CLIPTextModel),
        text_encoder_2=second["encoder"],
        tokenizer=tokenizer(),
        tokenizer_2=second["tokenizer"],
    )


def embedded() -> Any:
    return StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)


def narrow() -> Any:
    """The embedded pipeline with a decoder whose first sums are no float16 any more."""
    pipe = embedded()
    with torch.no_grad():
        pipe.vae.decoder.conv_in.weight *= 2e4
    return pipe


def unsafe() -> Any:
    """The embedded pipeline with a real safety checker that takes everything for unsafe."""
    pipe = embedded()
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1}
    config = CLIPConfig(
        text_config={**small, "num_attention_heads": 4},
        vision_config={**small, "num_attention_heads": 4, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    checker = StableDiffusionSafetyChecker(config)
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2.0)
    size = {"height": 32, "width": 32}
    pipe.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size=size, crop_size=size),
    )
    return pipe


def lora(folder: Path) -> None:
    """A LoRA of rank 1 for an attention of the embedded UNet, in diffusers' format."""
    unet = embedded().unet
    name, layer = next(
        (name, layer) for name, layer in unet.named_modules() if name.endswith("attn2.to_v")
    )
    prefix = f"unet.{name}"
    weights = {
        f"{prefix}.lora_A.weight": torch.randn(1, layer.in_features),
        f"{prefix}.lora_B.weight": torch.randn(layer.out_features, 1),
    }
    save_file(weights, folder / "paint.safetensors")


def single_file(path: Path) -> None:
    """The embedded pipeline as one file, its weights under their names of the CompVis repository.

    The names are those of diffusers' scripts/convert_diffusers_to_original_stable_diffusion.py, here
    for one resnet a block.
    """
    pipe = embedded()
    levels = len(pipe.unet.config.block_out_channels)
    weights: dict[str, torch.Tensor] = {}
    blocks = [("mid_block.attentions.0.", "middle_block.1.")]
    blocks += [(f"mid_block.resnets.{n}.", f"middle_block.{2 * n}.") for n in range(2)]
    for level in range(levels):
        down, up = 2 * level + 1, 2 * level
        has_attention = "CrossAttn" in pipe.unet.config.up_block_types[level]
        blocks += [
            (f"down_blocks.{level}.resnets.0.", f"input_blocks.{down}.0."),
            (f"down_blocks.{level}.attentions.0.", f"input_blocks.{down}.1."),
            (f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{down + 1}.0.op."),
            *((f"up_blocks.{level}.resnets.{n}.", f"output_blocks.{up + n}.0.") for n in range(2)),
            *(
                (f"up_blocks.{level}.attentions.{n}.", f"output_blocks.{up + n}.1.")
                for n in range(2)
            ),
            (
                f"up_blocks.{level}.upsamplers.0.",
                f"output_blocks.{up + 1}.{2 if has_attention else 1}.",
            ),
        ]
    inner = [
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ]
    resnet = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("time_emb_proj", "emb_layers.1"),
        ("conv_shortcut", "skip_connection"),
    ]
    for key, value in pipe.unet.state_dict().items():
        name = "input_blocks.0.0." + key.removeprefix("conv_in.") if key[:8] == "conv_in." else key
        parts = [*resnet, *blocks] if ".resnets." in name else [*blocks, *inner]
        for ours, theirs in parts:
            name = name.replace(ours, theirs)
        weights[f"model.diffusion_model.{name}"] = value
    steps = len(pipe.vae.config.block_out_channels)
    for key, value in pipe.vae.state_dict().items():
        name = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        for n in range(steps):
            name = name.replace(f"encoder.down_blocks.{n}.resnets", f"encoder.down.{n}.block")
            name = name.replace(
                f"encoder.down_blocks.{n}.downsamplers.0", f"encoder.down.{n}.downsample"
            )
            last = steps - 1 - n
            name = name.replace(f"decoder.up_blocks.{n}.resnets", f"decoder.up.{last}.block")
            name = name.replace(
                f"decoder.up_blocks.{n}.upsamplers.0", f"decoder.up.{last}.upsample"
            )
        for n in range(2):
            name = name.replace(f"mid_block.resnets.{n}", f"mid.block_{n + 1}")
        weights[f"first_stage_model.{name}"] = value
    for key, value in pipe.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = (
            value
        )
    save_file({key: value.contiguous() for key, value in weights.items()}, path)


def main(folder: Path) -> None:
    """Make all of them in *folder*."""
    torch.manual_seed(0)
    for make in (sdxl, sd3, flux, narrow, unsafe):
        pipe: DiffusionPipeline = make()
        pipe.save_pretrained(folder / make.__name__)
    lora(folder)
    single_file(folder / "single.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
