"""Read the config.json of a model of timm, and of one that transformers wraps (``timm_wrapper``).

Written after timm 1.0: ``resolve_data_config`` in timm/data/config.py for the defaults, ``transforms_imagenet_eval`` in
timm/data/transforms_factory.py for what is done with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.facts import Facts, class_names, stated_numbers
from fluxdrop.predict.origin.huggingface import CONFIG
from fluxdrop.preprocess.crop_percentage import resize_to

_DEFAULTS: dict[str, Any] = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "crop_pct": 0.875,
    "crop_mode": "center",
}


def is_config(config: dict[str, Any]) -> bool:
    """Whether *config*, the content of a config.json, is that of a model of timm."""
    return isinstance(config.get("architecture"), str)


def read(folder: Path, config: dict[str, Any]) -> Facts:
    """Return what *config*, the folder's config.json, says.

    Raises:
        FluxdropError: Kind ``model``, when it is wrong.
    """
    facts = Facts()
    stated = config.get("pretrained_cfg") or config
    # timm takes its own default for what is missing or empty.
    values = {key: stated.get(key) or default for key, default in _DEFAULTS.items()}

    def source(key: str) -> str:
        return f"{CONFIG}: {key}" if stated.get(key) else f"{CONFIG}: timm's default {key}"

    model_args = config.get("model_args") or {}
    channels, height, width = (int(side) for side in values["input_size"])
    channels = int(model_args.get("in_chans") or channels)
    size = [width, height]
    facts.take("size", size, source("input_size"))
    facts.take("mode", "L" if channels == 1 else "RGB", source("input_size"))
    if channels not in (1, 3):
        facts.unusable = FluxdropError(
            f"{folder / CONFIG} is of a model for pictures with {channels} channels",
            hint="fluxdrop serves models of 1 and 3 channels.",
            kind="model",
        )
    percentage = stated_numbers(values, "crop_pct")[0]
    if not 0.01 < percentage < 100:
        raise ValueError(f"crop_pct is {percentage:g}")
    to = resize_to((width, height), percentage)
    mode = values["crop_mode"]
    facts.take(
        "resize",
        {"squash": "stretch", "border": "letterbox"}.get(mode, "crop"),
        source("crop_mode"),
    )
    if to not in (size, size[0] if size[0] == size[1] else None):
        facts.take("resize_to", to, source("crop_pct"))
    mean = stated_numbers(values, "mean")[:channels]
    if mode == "border":
        fill = [round(255 * value) for value in (mean * 3)[:3]]
        facts.take("background", "#" + "".join(f"{value:02x}" for value in fill), source("mean"))
    facts.take("filter", values["interpolation"], source("interpolation"))
    if values["interpolation"] not in (
        "nearest",
        "bilinear",
        "bicubic",
        "box",
        "hamming",
        "lanczos",
    ):
        facts.take("filter", "bicubic", f"guessed: not {values['interpolation']}")
    facts.take("resampler", "torchvision", f"{CONFIG}: timm resizes with torchvision")
    facts.take("scale", 255.0, f"{CONFIG}: timm's pictures are from 0 to 1")
    facts.take("mean", mean, source("mean"))
    facts.take("std", stated_numbers(values, "std")[:channels], source("std"))
    _read_labels(config, stated, facts)
    return facts


def _read_labels(config: dict[str, Any], stated: dict[str, Any], facts: Facts) -> None:
    """Add the labels and the kind of output."""
    count = config.get("num_classes", stated.get("num_classes"))
    if count == 0:
        facts.say("output", "embedding", f"{CONFIG}: num_classes is 0")
        return
    names = config.get("label_names") or stated.get("label_names") or stated.get("labels")
    descriptions = config.get("label_descriptions") or stated.get("label_descriptions")
    labels = class_names(names) or class_names(config.get("id2label"))
    if labels and isinstance(descriptions, dict) and all(name in descriptions for name in labels):
        # The names are those of the data set, such as n02123045; the descriptions are words.
        facts.name_classes(
            [str(descriptions[name]) for name in labels], f"{CONFIG}: label_descriptions"
        )
    elif labels and not all(label == f"LABEL_{index}" for index, label in enumerate(labels)):
        key = "label_names" if names else "id2label"
        facts.name_classes(labels, f"{CONFIG}: {key}")
    problem = config.get("problem_type")
    if problem == "multi_label_classification":
        facts.say("output", "multi-label", f"{CONFIG}: problem_type")
        facts.say("activation", "sigmoid", f"{CONFIG}: problem_type")
    elif isinstance(count, int) and count > 1:
        facts.say("output", "logits", f"{CONFIG}: timm's classifiers give logits")
