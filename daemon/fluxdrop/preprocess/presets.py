"""Preprocessing that many models share, by name."""

from __future__ import annotations

from typing import Any

_IMAGENET = {"scale": 255.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_HALF = {"scale": 255.0, "mean": [0.5], "std": [0.5]}

PRESETS: dict[str, dict[str, Any]] = {
    # torchvision/transforms/_presets.py, ImageClassification, as most of torchvision's weights and timm's models.
    "imagenet": {
        "resize": "crop",
        "crop_pct": 0.875,
        "filter": "bilinear",
        "resampler": "torchvision",
        **_IMAGENET,
    },
    # timm/data/constants.py, IMAGENET_INCEPTION_MEAN, with DEFAULT_CROP_PCT.
    "inception": {
        "resize": "crop",
        "crop_pct": 0.875,
        "filter": "bicubic",
        "resampler": "torchvision",
        **_HALF,
    },
    # _transform of clip/clip.py in openai/CLIP.
    "clip": {
        "resize": "crop",
        "crop_pct": 1.0,
        "filter": "bicubic",
        "resampler": "torchvision",
        "scale": 255.0,
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
    # SiglipImageProcessor and ViTImageProcessor of transformers.
    "siglip": {
        "resize": "stretch",
        "crop_pct": 1.0,
        "filter": "bicubic",
        "resampler": "pillow",
        **_HALF,
    },
    "vit": {
        "resize": "stretch",
        "crop_pct": 1.0,
        "filter": "bilinear",
        "resampler": "pillow",
        **_HALF,
    },
    # classify_transforms of ultralytics/data/augment.py.
    "ultralytics": {
        "resize": "crop",
        "crop_pct": 1.0,
        "filter": "bilinear",
        "resampler": "torchvision",
        "scale": 255.0,
        "mean": [0.0],
        "std": [1.0],
    },
    # The modes of preprocess_input in keras/src/applications/imagenet_utils.py. Resizing is not a part of them.
    "tf": {"scale": 127.5, "mean": [1.0], "std": [1.0]},
    "caffe": {"mode": "BGR", "scale": 1.0, "mean": [103.939, 116.779, 123.68], "std": [1.0]},
}
"""Keys of model.toml's ``[input]`` table, and ``crop_pct`` (see `crop_percentage.resolve`)."""
