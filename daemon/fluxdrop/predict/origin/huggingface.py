"""Read config.json and preprocessor_config.json, as ``save_pretrained`` of transformers writes them.

An image processor (https://huggingface.co/docs/transformers/main_classes/image_processor) resizes, takes the centre,
rescales and normalises. Values that its file leaves out are those of its class; they, and what single classes do in
their own way, are written here after transformers 5.23 (``models/*/image_processing_pil_*.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.facts import (
    GUESSED,
    Facts,
    class_names,
    numbers,
    read_json,
    reading,
    stated_numbers,
)

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"

_HALF = [0.5, 0.5, 0.5]
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_BILINEAR, _BICUBIC = 2, 3
_CENTRE = {"do_center_crop": True}
_SHORTER = {"default_to_square": False}
_COMMON: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _HALF,
    "image_std": _HALF,
    "resample": _BICUBIC,
    "size": 224,
    "crop_size": 224,
    "default_to_square": True,
}
_CLASSES: dict[str, dict[str, Any]] = {
    "Beit": {},
    "Bit": {**_CLIP, **_CENTRE, **_SHORTER},
    "CLIP": {**_CLIP, **_CENTRE, **_SHORTER},
    "ConvNext": {**_SHORTER, "size": 384, "crop_pct": 224 / 256},
    "DeiT": {**_CENTRE, "size": 256},
    "EfficientNet": {"size": 346, "crop_size": 289, "rescale_offset": False, "include_top": True},
    "Levit": {**_IMAGENET, **_CENTRE, **_SHORTER},
    "MobileNetV1": {**_CENTRE, **_SHORTER, "size": 256, "resample": _BILINEAR},
    "MobileNetV2": {**_CENTRE, **_SHORTER, "size": 256, "resample": _BILINEAR},
    "MobileViT": {
        **_CENTRE,
        **_SHORTER,
        "crop_size": 256,
        "do_normalize": False,
        "do_flip_channel_order": True,
    },
    "PoolFormer": {**_IMAGENET, **_CENTRE, **_SHORTER, "crop_pct": 0.9},
    "Pvt": {**_IMAGENET},
    "Segformer": {**_IMAGENET, "size": 512, "resample": _BILINEAR},
    "Siglip": {},
    "ViT": {"resample": _BILINEAR},
}
_UNSUPPORTED = {
    "Donut": "it may turn pictures, and shrinks them twice",
    "ImageGPT": "it replaces colours by the numbers of clusters",
    "PPLCNet": "it rounds the longer side to the nearest pixel, and normalises before it turns RGB into BGR",
    "Perceiver": "it takes the centre before it resizes",
    "Siglip2": "it cuts pictures into patches of its own",
    "TextNet": "the size of what it makes depends on the picture",
}
"""What the image processors do that fluxdrop does not."""
_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By the number that Pillow has given to a filter since its beginnings."""
_TASKS = {
    "ForObjectDetection": "an object detector",
    "ForSegmentation": "a segmenter",
    "ForSemanticSegmentation": "a segmenter",
    "ForUniversalSegmentation": "a segmenter",
    "ForInstanceSegmentation": "a segmenter",
    "ForDepthEstimation": "a depth estimator",
    "ForMaskedImageModeling": "a model that was only pre-trained",
    "ForPreTraining": "a model that was only pre-trained",
    "ForCausalLM": "a language model",
    "ForConditionalGeneration": "a model that writes text",
    "ForImageTextToText": "a model that writes text",
    "ForSequenceClassification": "a classifier of text",
}


def is_config(config: dict[str, Any]) -> bool:
    """Whether *config*, the content of a config.json, was written by transformers."""
    return isinstance(config.get("model_type"), str) or bool(config.get("architectures"))


def _architectures(config: dict[str, Any]) -> list[str]:
    """Return the names of the classes that can load the model."""
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def refuse_other_tasks(folder: Path, config: dict[str, Any]) -> None:
    """Check that the model in *folder* is not made for something other than rows of numbers.

    Raises:
        FluxdropError: Kind ``model``, when it is.
    """
    for name in _architectures(config):
        task = next((told for end, told in _TASKS.items() if name.endswith(end)), None)
        if task is not None:
            raise FluxdropError(
                f"{folder} is {task} ({name}), which fluxdrop does not serve",
                hint="Served are image classifiers (...ForImageClassification), regressions and embeddings.",
                kind="model",
            )


def read(folder: Path, config: dict[str, Any]) -> Facts:
    """Return what *config*, the folder's config.json, and its preprocessor_config.json say.

    Raises:
        FluxdropError: Kind ``model``, when a file cannot be read, or the model is of another task.
    """
    refuse_other_tasks(folder, config)
    facts = Facts()
    with reading(folder / CONFIG):
        _read_labels(config, facts)
    if config.get("num_channels") == 1:
        facts.take("mode", "L", f"{CONFIG}: num_channels")
    values = read_json(folder / PROCESSOR)
    if values is None:
        facts.notes.append(
            f"{folder.name} has no {PROCESSOR}, so how its pictures are made is not known"
        )
        return facts
    with reading(folder / PROCESSOR):
        _read_processor(folder, values, facts)
    return facts


def _read_processor(folder: Path, values: dict[str, Any], facts: Facts) -> None:
    """Add what *values*, the content of the folder's preprocessor_config.json, say of the pictures."""
    name = _class_of(values)
    if name in _UNSUPPORTED:
        facts.unusable = _unusable(folder, values, _UNSUPPORTED[name])
        return
    if name not in _CLASSES:
        told = values.get("image_processor_type") or values.get("feature_extractor_type")
        facts.notes.append(
            f"{PROCESSOR} is of {told or 'an image processor without a name'}, which fluxdrop does not know: its values"
            " were taken in the usual order of resize, centre, rescale and normalise"
        )
    values = _COMMON | _CLASSES.get(name, {}) | {k: v for k, v in values.items() if v is not None}
    _check(values)
    _read_normalisation(values, 1 if facts.input.get("mode") == "L" else 3, facts)
    try:
        _read_geometry(name, values, facts)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        facts.unusable = _unusable(
            folder, values, f"its size is {values['size']}, which is no fixed width and height"
        )


def _check(values: dict[str, Any]) -> None:
    """Raise ValueError for a number in *values* with which nothing can be computed, as no image processor can."""
    factor, percentage = values["rescale_factor"], values.get("crop_pct", 1)
    for key, number in (("rescale_factor", factor), ("crop_pct", percentage)):
        if not 1e-6 < stated_numbers({key: number}, key)[0] < 1e6:
            raise ValueError(f"{key} is {number}")
    resample = values["resample"]
    if not isinstance(resample, int) or not 0 <= resample < len(_FILTERS):
        raise ValueError(f"resample is {resample!r}, and filters have the numbers 0 to 5")


def _stated_labels(config: dict[str, Any], facts: Facts) -> tuple[list[str] | None, str]:
    """Return the names of the classes in *config*, if it has them, and the key; note what contradicts itself."""
    labels, by_name = class_names(config.get("id2label")), config.get("label2id")
    if not isinstance(by_name, dict):
        by_name = {}
    if labels is None:
        if config.get("id2label"):
            facts.notes.append(
                f"the id2label in {CONFIG} does not have a name for each of the numbers 0, 1, 2 and so on, so it is"
                " not used"
            )
        by_number = {number: name for name, number in by_name.items()}
        return class_names(by_number) if len(by_number) == len(by_name) else None, "label2id"
    if by_name.keys() == set(labels) and any(
        labels[number] != name
        for name, number in by_name.items()
        if isinstance(number, int) and 0 <= number < len(labels)
    ):
        facts.notes.append(
            f"the label2id in {CONFIG} contradicts its id2label, which is used, as transformers does"
        )
    return labels, "id2label"


def _read_labels(config: dict[str, Any], facts: Facts) -> None:
    """Add the labels and the kind of output."""
    labels, key = _stated_labels(config, facts)
    count = len(labels) if labels else config.get("num_labels")
    problem = config.get("problem_type")
    if problem is not None and problem not in _PROBLEMS:
        facts.notes.append(
            f"the problem_type in {CONFIG} is {str(problem)[:60]!r}, which transformers does not know, so it is"
            " not used"
        )
        problem = None
    is_classifier = any("ForImageClassification" in name for name in _architectures(config))
    if problem == "regression" or (problem is None and count == 1 and is_classifier):
        source = f"{CONFIG}: problem_type" if problem else f"{CONFIG}: it has one label"
        facts.say("output", "regression", source)
    elif problem == "multi_label_classification":
        facts.say("output", "multi-label", f"{CONFIG}: problem_type")
        facts.say("activation", "sigmoid", f"{CONFIG}: problem_type")
    elif problem == "single_label_classification" or is_classifier:
        source = f"{CONFIG}: problem_type" if problem else f"{CONFIG}: architectures"
        facts.say("output", "logits", source)
    if not labels or not (is_classifier or problem):
        return
    if all(label == f"LABEL_{index}" for index, label in enumerate(labels)):
        source = f"{GUESSED}the {key} in {CONFIG} has numbers only"
    else:
        source = f"{CONFIG}: {key}"
    if not (facts.top.get("output") == "regression" and source.startswith(GUESSED)):
        facts.name_classes(labels, source)


def _class_of(values: dict[str, Any]) -> str:
    """Return the name of the image processor's class without its ending."""
    name = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(ending)
    return {"MobileVit": "MobileViT", "LeViT": "Levit", "Deit": "DeiT"}.get(name, name)


def _unusable(folder: Path, values: dict[str, Any], why: str) -> FluxdropError:
    name = values.get("image_processor_type") or values.get("feature_extractor_type")
    return FluxdropError(
        f"{folder / PROCESSOR} ({name}) makes pictures in a way that fluxdrop does not: {why}",
        hint="Give --size, and --resize, --mean, --std and --scale, to make them in another way.",
        kind="model",
    )


def _read_normalisation(values: dict[str, Any], channels: int, facts: Facts) -> None:
    """Add scale, mean, std, filter and the order of the channels."""

    def source(key: str) -> str:
        return f"{PROCESSOR}: {key}"

    offset = 0.0
    if values["do_rescale"]:
        scale = 1 / float(values["rescale_factor"])
        facts.take("scale", _rounded(scale), source("rescale_factor"))
        offset = 1.0 if values.get("rescale_offset") else 0.0
    else:
        facts.take("scale", 1.0, source("do_rescale"))
    mean, std = [0.0], [1.0]
    if values["do_normalize"]:
        mean = stated_numbers(values, "image_mean")
        std = stated_numbers(values, "image_std")
    if values.get("include_top"):
        # EfficientNet's image processor divides by the standard deviation once more.
        again = numbers(values["image_std"]) or [1.0]
        std = [a * b for a, b in zip(std * (len(again) // len(std)), again, strict=True)]
    if channels == 1:
        mean, std = mean[:1], std[:1]
    normalised = "image_mean" if values["do_normalize"] else "do_normalize"
    facts.take("mean", [m + offset for m in mean], source(normalised))
    facts.take("std", std, source(normalised.replace("mean", "std")))
    facts.take("filter", _FILTERS[values["resample"]], source("resample"))
    told = str(values.get("image_processor_type") or "")
    if told.endswith("Fast"):
        facts.take("resampler", "torch", f"{PROCESSOR}: {told}")
    else:
        facts.take("resampler", "pillow", f"{PROCESSOR}: transformers resizes as Pillow does")
    if values.get("do_flip_channel_order"):
        facts.take("mode", "BGR", source("do_flip_channel_order"))


def _read_geometry(name: str, values: dict[str, Any], facts: Facts) -> None:
    """Add size, resize and resize_to. Raise KeyError, TypeError or ValueError if there is no fixed size."""
    size = values["size"]
    if isinstance(size, int):
        is_square = values["default_to_square"]
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size}
    crop = values["crop_size"]
    if isinstance(crop, dict):
        crop = [int(crop["width"]), int(crop["height"])]
    elif isinstance(crop, int):
        crop = [crop, crop]
    if not values["do_resize"]:
        raise ValueError("not resized")
    if "longest_edge" in size or "max_height" in size:
        raise ValueError("not a fixed size")
    to: Any
    if "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        if name == "ConvNext":
            # Below 384 a part of the picture is the size; from there on all of it is.
            crops = edge < 384
            to = int(edge / values["crop_pct"]) if crops else [edge, edge]
            crop = [edge, edge]
        elif not values["do_center_crop"]:
            raise ValueError("not a fixed size")
        elif name == "Levit":
            to = int(256 / 224 * edge)
        else:
            to = int(edge / values.get("crop_pct", 1))
    else:
        to = [int(size["width"]), int(size["height"])]
        if name == "PoolFormer":
            to = [int(side / values["crop_pct"]) for side in to]
            to = to[0] if to[0] == to[1] else to
        if not values["do_center_crop"]:
            crop = to
    source = f"{PROCESSOR}: size"
    cropped = f"{PROCESSOR}: crop_size" if values["do_center_crop"] else source
    facts.take("size", crop, cropped)
    facts.take("resize", "crop" if isinstance(to, int) else "stretch", source)
    if to != crop and [to, to] != crop:
        facts.take(
            "resize_to", to, f"{PROCESSOR}: size and crop_pct" if "crop_pct" in values else source
        )
    if min(crop) > (to if isinstance(to, int) else min(to)):
        facts.take("background", "#000000", f"{PROCESSOR}: the crop_size is larger than the size")


def _rounded(value: float) -> float:
    """Return *value* without the rounding error of a division, if it is an integer with one."""
    return float(round(value)) if abs(value - round(value)) < 1e-6 * abs(value) else value
