"""Pictures with the metadata of other programs than stable-diffusion-webui."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fluxdrop.errors import FluxdropError
from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.png_info import read_infotext
from support.comfyui_graphs import EXPECTED

SWARMUI = {
    "sui_image_params": {
        "prompt": "a red circle",
        "negativeprompt": "blurry",
        "model": "sd15/shapes.safetensors",
        "seed": 42,
        "steps": "20",
        "cfgscale": "3.5",
        "aspectratio": "4:3",
        "width": 64,
        "height": 48,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "swarm_version": "0.9.5",
    },
    "sui_extra_data": {"date": "2026-01-01"},
}
FOOOCUS = {
    "base_model": "shapes",
    "full_prompt": ["a red circle", "cinematic still"],
    "guidance_scale": 3.5,
    "loras": [],
    "negative_prompt": "blurry",
    "prompt": "a red circle",
    "resolution": "(64, 48)",
    "sampler": "dpmpp_2m",
    "scheduler": "karras",
    "seed": "42",
    "steps": 20,
    "metadata_scheme": "fooocus",
    "version": "Fooocus v2.5.5",
}
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42,
            "steps": 20,
            "cfg": 3.5,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
        "is_changed": [float("nan")],
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "shapes.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red circle"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
}
NOVELAI = {
    "prompt": "a red circle",
    "steps": 20,
    "width": 64,
    "height": 48,
    "scale": 3.5,
    "seed": 42,
    "noise_schedule": "karras",
    "sampler": "k_dpmpp_2m",
    "uc": "blurry",
}
EASY_DIFFUSION = {
    "Prompt": "a red circle",
    "Negative Prompt": "blurry",
    "Seed": "42",
    "Steps": "20",
    "Guidance Scale": "3.5",
    "Sampler": "dpmpp_2m",
    "Width": "64",
    "Height": "48",
    "Stable Diffusion model": "shapes.ckpt",
}
DRAW_THINGS = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><exif:UserComment><rdf:Alt>
<rdf:li xml:lang="x-default">{&quot;c&quot;:&quot;a red circle&quot;,&quot;uc&quot;:&quot;blurry&quot;,\
&quot;steps&quot;:20,&quot;seed&quot;:42,&quot;scale&quot;:3.5,&quot;size&quot;:&quot;64x48&quot;,\
&quot;sampler&quot;:&quot;DPM++ 2M Karras&quot;,&quot;model&quot;:&quot;shapes.ckpt&quot;}</rdf:li>
</rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"""
PLAIN = """a red circle
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3.5, Seed: 42, Size: 64x48, Model: shapes"""


def png(path: Path, **chunks: str) -> Path:
    """A PNG at *path* with text *chunks*."""
    info = PngInfo()
    for key, text in chunks.items():
        info.add_itxt(key, text, zip=len(text) > 100_000)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


CHUNKS: dict[str, dict[str, str]] = {
    "SwarmUI": {"parameters": json.dumps(SWARMUI)},
    "Fooocus": {"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"},
    "ComfyUI": {"prompt": json.dumps(GRAPH), "workflow": '{"nodes": []}'},
    "ComfyUI with a saver": {"parameters": PLAIN, "prompt": "{}"},
    "NovelAI": {"Software": "NovelAI", "Comment": json.dumps(NOVELAI), "Description": "a red"},
    "Easy Diffusion": EASY_DIFFUSION,
    "Draw Things": {"XML:com.adobe.xmp": DRAW_THINGS},
}


@pytest.mark.parametrize("program", CHUNKS)
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "packed iTXt"])
def test_programs(tmp_path: Path, program: str, kind: str) -> None:
    """The parameters of each program are read from text chunks of each kind."""
    info = PngInfo()
    for key, text in CHUNKS[program].items():
        if kind in ("tEXt", "zTXt"):
            info.add_text(key, text, zip=kind == "zTXt")
        else:
            info.add_itxt(key, text, zip=kind != "iTXt")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)

    parameters, _warnings = parse_infotext(read_infotext(tmp_path / "a.png"))

    differing: dict[str, dict[str, Any]] = {
        "Easy Diffusion": {"sampler": "DPM++ 2M"},
        "NovelAI": {"pipeline": None},
    }
    assert msgspec.structs.replace(EXPECTED, **differing.get(program, {})) == parameters


def unicode_comment(text: str, encoding: str) -> bytes:
    return b"UNICODE\0" + text.encode(encoding)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
@pytest.mark.parametrize(
    "comment",
    [
        unicode_comment(PLAIN, "utf-16-be"),
        unicode_comment(PLAIN, "utf-16-le"),
        b"ASCII\0\0\0" + PLAIN.encode(),
        unicode_comment(json.dumps(SWARMUI), "utf-16-le"),
        json.dumps(FOOOCUS).encode(),
    ],
)
def test_exif(tmp_path: Path, suffix: str, comment: bytes) -> None:
    """A user comment of EXIF is read as well, in the encodings in which programs write it."""
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    Image.new("RGB", (8, 8)).save(path, exif=exif.tobytes())

    parameters, _warnings = parse_infotext(read_infotext(path))

    assert parameters == EXPECTED


def test_comment_of_a_camera(tmp_path: Path) -> None:
    """A photograph's comment is not taken for a prompt."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0Screenshot"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif.tobytes())

    with pytest.raises(FluxdropError, match="does not say how it was generated"):
        read_infotext(tmp_path / "a.jpg")


def test_comfyui_in_webp(tmp_path: Path) -> None:
    """ComfyUI's animations have the graph in EXIF's model."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = f"prompt:{json.dumps(GRAPH)}"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif.tobytes())

    assert parse_infotext(read_infotext(tmp_path / "a.webp"))[0] == EXPECTED


def test_guidance_of_invokeai(tmp_path: Path) -> None:
    """InvokeAI's guidance for FLUX is the guidance scale, and its LoRAs become tags."""
    written = {
        "positive_prompt": "a red circle",
        "guidance": 3.5,
        "steps": 20,
        "scheduler": "euler",
        "loras": [{"model": {"name": "film"}, "weight": 0.75}],
    }
    path = png(tmp_path / "a.png", invokeai_metadata=json.dumps(written))

    parameters, warnings = parse_infotext(read_infotext(path))

    assert ("a red circle <lora:film:0.75>", 3.5, "Euler", []) == (
        parameters.prompt,
        parameters.guidance_scale,
        parameters.sampler,
        warnings,
    )


def test_brackets_of_invokeai_2(tmp_path: Path) -> None:
    """InvokeAI 2 writes the negative prompt in square brackets within the prompt."""
    image = {"prompt": [{"prompt": "a red circle [blurry], flat", "weight": 1}], "seed": 42}
    path = png(tmp_path / "a.png", **{"sd-metadata": json.dumps({"image": image})})
    parameters, _warnings = parse_infotext(read_infotext(path))

    assert ("a red circle , flat", "blurry", 42) == (
        parameters.prompt,
        parameters.negative_prompt,
        parameters.seed,
    )


def test_large_workflow(tmp_path: Path) -> None:
    """A workflow of megabytes beside the parameters does not matter, nor do chunks behind the pixels."""
    path = png(tmp_path / "a.png", workflow="x" * 3_000_000)
    data = path.read_bytes()
    text = b"tEXtparameters\0" + PLAIN.encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    path.write_bytes(data[:-12] + chunk + data[-12:])

    assert PLAIN == read_infotext(path)


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ({"workflow": '{"nodes": []}'}, "it has ComfyUI's workflow, but not its graph"),
        (
            {"prompt": json.dumps({"1": {"class_type": "X"}})},
            "What ComfyUI wrote into .* no sampler",
        ),
        ({"parameters": '{"sui_image_params": {"seed": 1}}'}, "What SwarmUI wrote into .* no"),
    ],
)
def test_programs_that_say_too_little(
    tmp_path: Path, chunks: dict[str, str], sentence: str
) -> None:
    """A workflow without its graph, and data without a prompt, are one sentence with the picture's path."""
    with pytest.raises(FluxdropError, match=sentence) as caught:
        read_infotext(png(tmp_path / "a.png", **chunks))

    assert "png-info" == caught.value.kind
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_damaged_pictures(tmp_path: Path, suffix: str) -> None:
    """A picture with any bytes changed is read, or refused as unreadable, and never anything else."""
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = unicode_comment(PLAIN, "utf-16-le")
    info = PngInfo()
    for key, text in (CHUNKS["ComfyUI"] | CHUNKS["NovelAI"]).items():
        info.add_text(key, text, zip=key == "prompt")
    options: dict[str, Any] = {"pnginfo": info} if suffix == "png" else {}
    Image.new("RGB", (8, 8)).save(path, exif=exif.tobytes(), **options)
    whole = path.read_bytes()
    chance = random.Random(suffix)
    for _mutant in range(200):
        data = bytearray(whole)
        for _change in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        with contextlib.suppress(FluxdropError):
            read_infotext(path)
