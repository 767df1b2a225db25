"""Infotext and pictures as other Stable Diffusion programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.png_info import read_infotext

A1111 = """portrait of a knight, (ornate armor:1.2), castle: gothic, 35mm
by candlelight
Negative prompt: blurry, text: watermark,
lowres
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1234567890, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, Denoising strength: 0.45, \
Clip skip: 2, Hires upscale: 2, Hires steps: 12, Hires upscaler: R-ESRGAN 4x+, \
Lora hashes: "detail: 0f1c3b, film: 9aa0b1", TI hashes: "easyneg: c74b4e", Version: v1.10.1"""

OLD_A1111 = """a cat
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 9, Size: 512x512, Model hash: 6ce0161689, \
Batch size: 4, Batch pos: 2"""

FORGE = """a neon sign that says "open: late, always"
Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, \
Seed: 77, Size: 896x1152, Model hash: bea01d51bd, Model: flux1-dev-bnb-nf4-v2, \
Version: f2.0.1v1.10.1-previous-659-gc055f2d4, Module 1: ae, Module 2: "clip_l, t5xxl_fp16\""""

SDNEXT = """a lighthouse in a storm
Negative prompt: people
Steps: 30, Size: 1024x1024, Sampler: UniPC, Seed: 5, CFG scale: 5, CFG rescale: 0.7, \
Model: "juggernaut: xl, v9", App: SD.Next, Version: 4b5b2a1, Operations: txt2img, \
Pipeline: StableDiffusionXLPipeline, Parser: native"""

INVOKEAI = {
    "generation_mode": "txt2img",
    "positive_prompt": "a harbour, at dawn",
    "negative_prompt": "fog",
    "width": 640,
    "height": 512,
    "seed": 31337,
    "cfg_scale": 7.5,
    "steps": 25,
    "scheduler": "dpmpp_2m_k",
    "model": {"key": "1f2", "hash": "blake3:0", "name": "dreamshaper: 8", "type": "main"},
    "app_version": "5.4.2",
}

EXPECTED: dict[str, dict[str, Any]] = {
    "A1111": {
        "prompt": "portrait of a knight, (ornate armor:1.2), castle: gothic, 35mm\nby candlelight",
        "negative_prompt": "blurry, text: watermark,\nlowres",
        "steps": 28,
        "sampler": "DPM++ 2M Karras",
        "guidance_scale": 6.5,
        "seed": 1234567890,
        "width": 512,
        "height": 768,
        "pipeline": "v1-5-pruned-emaonly",
    },
    "OLD_A1111": {
        "prompt": "a cat",
        "negative_prompt": "",
        "sampler": "DPM++ 2M Karras",
        "seed": 9,
    },
    "FORGE": {
        "prompt": 'a neon sign that says "open: late, always"',
        "sampler": "Euler Simple",
        "guidance_scale": 3.5,
        "seed": 77,
        "width": 896,
        "height": 1152,
        "pipeline": "flux1-dev-bnb-nf4-v2",
    },
    "SDNEXT": {
        "prompt": "a lighthouse in a storm",
        "negative_prompt": "people",
        "sampler": "UniPC",
        "pipeline": "juggernaut: xl, v9",
        "seed": 5,
    },
    "INVOKEAI": {
        "prompt": "a harbour, at dawn",
        "negative_prompt": "fog",
        "steps": 25,
        "sampler": "DPM++ 2M Karras",
        "guidance_scale": 7.5,
        "seed": 31337,
        "width": 640,
        "height": 512,
        "pipeline": "dreamshaper: 8",
    },
}


def png(path: Path, **chunks: str) -> Path:
    """A PNG at *path* with text *chunks*."""
    info = PngInfo()
    for key, text in chunks.items():
        info.add_itxt(key, text, zip=len(text) > 100_000)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("program", EXPECTED)
def test_pictures_of_other_programs(tmp_path: Path, program: str) -> None:
    """What AUTOMATIC1111, Forge, SD.Next and InvokeAI write into a picture is read right."""
    written = globals()[program]
    is_text = isinstance(written, str)
    chunks = {"parameters": written} if is_text else {"invokeai_metadata": json.dumps(written)}

    parameters, _warnings = parse_infotext(read_infotext(png(tmp_path / "a.png", **chunks)))

    expected = EXPECTED[program]
    assert expected == {key: getattr(parameters, key) for key in expected}


def test_unused_keys_of_a1111() -> None:
    """Every key of AUTOMATIC1111's that is not used is named, hires fields and hashes too."""
    _request, (warning,) = parse_infotext(A1111)

    for key in ("Model hash", "Denoising strength", "Clip skip", "Hires steps", "Hires upscaler"):
        assert f"{key}: " in warning
    assert "Lora hashes: detail: 0f1c3b, film: 9aa0b1" in warning


def too_much(path: Path) -> Path:
    return png(path, parameters="a" * 70_000)


def bomb(path: Path) -> Path:
    return png(path, parameters="a" * 8_000_000)


def no_picture(path: Path) -> Path:
    path.write_text("a cat")
    return path


def damaged(path: Path) -> Path:
    png(path, parameters="a cat")
    path.write_bytes(path.read_bytes()[:40])
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (png, "does not say how it was generated"),
        (lambda path: path, "There is no file"),
        (no_picture, "is not a PNG picture"),
        (too_much, "more than 65,536 bytes of parameters"),
        (bomb, "cannot be read"),
        (damaged, "is not a PNG picture, or not a whole one"),
        (lambda path: png(path, invokeai_metadata="{"), "What InvokeAI wrote into"),
        (lambda path: png(path, invokeai_metadata='{"steps": "x"}'), "What InvokeAI wrote into"),
    ],
)
def test_pictures_that_say_nothing(tmp_path: Path, make: Any, sentence: str) -> None:
    """A picture without parameters, a damaged one and a bomb are one sentence with their path."""
    path = make(tmp_path / "a.png")

    with pytest.raises(FluxdropError, match=sentence) as caught:
        read_infotext(path)

    assert "png-info" == caught.value.kind
    assert str(path) in caught.value.message
