"""Graphs as ComfyUI writes them, and what they mean."""

from __future__ import annotations

import json
from typing import Any

from fluxdrop.generate.infotext import parse_infotext
from fluxdrop.generate.metadata.json_prompt import json_descriptions
from fluxdrop.generate.parameters import PromptParameters

Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def classic(**sampler: Any) -> Graph:
    """The workflow with which ComfyUI begins."""
    return {
        "3": node(
            "KSampler",
            **{
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
                **sampler,
            },
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="sd/shapes.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=48, batch_size=1),
        "6": node("CLIPTextEncode", text="a red circle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blurry", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


EXPECTED = PromptParameters(
    prompt="a red circle",
    negative_prompt="blurry",
    steps=20,
    seed=42,
    guidance_scale=3.5,
    sampler="DPM++ 2M Karras",
    width=64,
    height=48,
    pipeline="shapes",
)


def read(graph: Graph) -> tuple[PromptParameters, list[str]]:
    """What a graph means."""
    descriptions = json_descriptions(json.dumps(graph))
    assert descriptions is not None
    (description,) = descriptions
    return parse_infotext(description.infotext())


def linked_text() -> Graph:
    return classic() | {
        "6": node("CLIPTextEncode", text=["10", 0], clip=["4", 1]),
        "10": node("StringConcatenate", string_a=["11", 0], string_b="circle", delimiter=" "),
        "11": node("Reroute", **{"": ["12", 0]}),
        "12": node("PrimitiveString", value="a red"),
    }


def reroutes() -> Graph:
    return classic(seed=["12", 0], steps=["13", 0], positive=["10", 0]) | {
        "10": node("Reroute", **{"": ["6", 0]}),
        "12": node("Reroute", **{"": ["14", 0]}),
        "13": node("PrimitiveInt", value=20),
        "14": node("Seed (rgthree)", seed=42),
    }


def advanced_with_refiner() -> Graph:
    base = classic()
    sampler = base["3"]["inputs"]
    del sampler["seed"], sampler["denoise"]
    base["3"] = node(
        "KSamplerAdvanced", **sampler, noise_seed=42, add_noise="enable", start_at_step=0
    )
    refiner = {**sampler, "noise_seed": 7, "latent_image": ["3", 0], "start_at_step": 16}
    return base | {
        "20": node("KSamplerAdvanced", **refiner),
        "8": node("VAEDecode", samples=["20", 0], vae=["4", 2]),
    }


def hires() -> Graph:
    return classic() | {
        "1": node("LatentUpscale", samples=["3", 0], width=128, height=96),
        "2": node("KSampler", **{**classic()["3"]["inputs"], "seed": 1, "latent_image": ["1", 0]}),
        "8": node("VAEDecode", samples=["2", 0], vae=["4", 2]),
    }


def custom() -> Graph:
    graph = classic()
    return graph | {
        "3": node(
            "SamplerCustom",
            add_noise=True,
            noise_seed=42,
            cfg=3.5,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            sampler=["30", 0],
            sigmas=["31", 0],
            latent_image=["5", 0],
        ),
        "30": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "31": node("SplitSigmas", sigmas=["32", 0], step=10),
        "32": node("BasicScheduler", scheduler="karras", steps=20, denoise=1, model=["4", 0]),
    }


def custom_advanced() -> Graph:
    return classic() | {
        "3": node(
            "SamplerCustomAdvanced",
            noise=["33", 0],
            guider=["34", 0],
            sampler=["30", 0],
            sigmas=["32", 0],
            latent_image=["5", 0],
        ),
        "30": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "32": node("KarrasScheduler", steps=20, sigma_max=14.6, sigma_min=0.03, rho=7),
        "33": node("RandomNoise", noise_seed=42),
        "34": node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=3.5),
    }


def sdxl() -> Graph:
    return classic() | {
        "6": node("CLIPTextEncodeSDXL", text_g="a red circle", text_l="a red circle", width=1024),
        "7": node("CLIPTextEncodeSDXL", text_g="blurry", text_l="", width=1024),
    }


def efficient() -> Graph:
    graph = classic(positive=["4", 1], negative=["4", 2], latent_image=["4", 3])
    for key in "567":
        del graph[key]
    return graph | {
        "4": node(
            "Efficient Loader",
            ckpt_name="shapes.safetensors",
            positive="a red circle",
            negative="blurry",
            empty_latent_width=64,
            empty_latent_height=48,
        )
    }


def controlled() -> Graph:
    return classic(positive=["40", 0], negative=["40", 1]) | {
        "40": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1)
    }


def stuck_together() -> Graph:
    """One node has both texts."""
    return classic() | {
        "6": node("CLIPTextEncode", text=["50", 0], clip=["4", 1]),
        "7": node("CLIPTextEncode", text=["50", 1], clip=["4", 1]),
        "50": node("Both texts", text_positive="a red circle", text_negative="blurry"),
    }


def wrapped() -> Graph:
    return {"client_id": "1f", "prompt": classic()}
