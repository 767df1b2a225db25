"""Image classifiers of transformers, small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.sweep.made import LABELS, Made
from support.sweep.photographs import read
from support.sweep.random_weights import heads_of, randomise, reference_of

_SIDE = 64


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


_STRETCHED: dict[str, Any] = {"size": _square(_SIDE)}
_STRETCHED_THEN_CROPPED: dict[str, Any] = {"size": _square(73), "crop_size": _square(_SIDE)}
_CROPPED: dict[str, Any] = {"size": {"shortest_edge": 73}, "crop_size": _square(_SIDE)}
_BY_PERCENTAGE: dict[str, Any] = {"size": {"shortest_edge": _SIDE}, "crop_pct": 0.875}

_TRANSFORMER: dict[str, Any] = {
    "image_size": _SIDE,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
}
_STAGES: dict[str, Any] = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
_WINDOWS: dict[str, Any] = {
    "image_size": _SIDE,
    "embed_dim": 24,
    "depths": [1, 2, 1],
    "num_heads": [2, 2, 4],
    "window_size": 4,
}
_PYRAMID: dict[str, Any] = {"image_size": _SIDE, **_STAGES, "hidden_sizes": [16, 32, 40, 64]}

MODELS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "beit": ("Beit", {**_TRANSFORMER, "use_relative_position_bias": True}, "Beit", _STRETCHED),
    "bit": (
        "Bit",
        {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 2, 1], "num_groups": 8},
        "Bit",
        _CROPPED,
    ),
    "clip": ("CLIP", {"vision_config": _TRANSFORMER}, "CLIP", _CROPPED),
    "convnext": ("ConvNext", _STAGES, "ConvNext", _BY_PERCENTAGE),
    "convnextv2": ("ConvNextV2", _STAGES, "ConvNext", _BY_PERCENTAGE),
    "cvt": (
        "Cvt",
        {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]},
        "ConvNext",
        _BY_PERCENTAGE,
    ),
    "data2vec-vision": ("Data2VecVision", _TRANSFORMER, "Beit", _STRETCHED),
    "deit": ("DeiT", _TRANSFORMER, "DeiT", _STRETCHED_THEN_CROPPED),
    "dinov2": ("Dinov2", _TRANSFORMER, "Bit", _CROPPED),
    "dinov2_with_registers": ("Dinov2WithRegisters", _TRANSFORMER, "Bit", _CROPPED),
    "efficientnet": (
        "EfficientNet",
        {"image_size": _SIDE, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
        "EfficientNet",
        _STRETCHED,
    ),
    "focalnet": ("FocalNet", {"image_size": _SIDE, "embed_dim": 24, "depths": [1, 1, 2, 1]}, "Bit", _CROPPED),
    "hgnet_v2": ("HGNetV2", {}, "ConvNext", _BY_PERCENTAGE),
    "hiera": (
        "Hiera",
        {"image_size": [_SIDE, _SIDE], "embed_dim": 24, "num_heads": [1, 2, 4, 8], "depths": [1, 1, 2, 1]},
        "Bit",
        _CROPPED,
    ),
    "ijepa": ("IJepa", _TRANSFORMER, "ViT", _STRETCHED),
    "levit": (
        "Levit",
        {"image_size": _SIDE, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4],
         "depths": [1, 1, 1], "key_dim": [8, 8, 8]},
        "Levit",
        {"size": {"shortest_edge": _SIDE}, "crop_size": _square(_SIDE)},
    ),
    "mobilenet_v1": ("MobileNetV1", {"image_size": _SIDE, "depth_multiplier": 0.25}, "MobileNetV1", _CROPPED),
    "mobilenet_v2": ("MobileNetV2", {"image_size": _SIDE, "depth_multiplier": 0.35}, "MobileNetV2", _CROPPED),
    "mobilevit": (
        "MobileViT",
        {"image_size": _SIDE, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64]},
        "MobileViT",
        _CROPPED,
    ),
    "mobilevitv2": ("MobileViTV2", {"image_size": _SIDE, "width_multiplier": 0.5}, "MobileViT", _CROPPED),
    "poolformer": ("PoolFormer", _STAGES, "PoolFormer", {**_CROPPED, "size": {"shortest_edge": _SIDE}}),
    "pvt": ("Pvt", {**_PYRAMID, "num_labels": len(LABELS)}, "Pvt", _STRETCHED),
    "pvt_v2": ("PvtV2", _PYRAMID, "Pvt", _STRETCHED),
    "regnet": ("RegNet", {**_STAGES, "embedding_size": 16, "groups_width": 8}, "ConvNext", _BY_PERCENTAGE),
    "resnet": ("ResNet", {**_STAGES, "embedding_size": 16, "layer_type": "basic"}, "ConvNext", _BY_PERCENTAGE),
    "segformer": (
        "Segformer",
        {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]},
        "Segformer",
        _STRETCHED,
    ),
    "siglip": ("Siglip", {"vision_config": _TRANSFORMER}, "Siglip", _STRETCHED),
    "swiftformer": (
        "SwiftFormer",
        {"image_size": _SIDE, "embed_dims": [16, 24, 32, 48], "depths": [1, 1, 2, 1]},
        "ViT",
        _STRETCHED,
    ),
    "swin": ("Swin", _WINDOWS, "ViT", _STRETCHED),
    "swinv2": ("Swinv2", _WINDOWS, "ViT", _STRETCHED),
    "vit": ("ViT", _TRANSFORMER, "ViT", _STRETCHED),
    "vit_msn": ("ViTMSN", _TRANSFORMER, "ViT", _STRETCHED),
}  # fmt: skip
"""By `model_type`: the network's class and configuration, and those of its image processor."""


def make(name: str, folder: Path, pictures: Sequence[Path]) -> Made:
    """Write the model *name* below *folder* as `save_pretrained` does; what transformers answers for *pictures*."""
    import torch
    import transformers

    of, changes, processor_of, processing = MODELS[name]
    saved = folder / name
    library: Any = transformers
    getattr(library, f"{processor_of}ImageProcessor")(**processing).save_pretrained(saved)
    config = getattr(library, f"{of}Config")(**changes, id2label=dict(enumerate(LABELS)))
    torch.manual_seed(17)
    model = getattr(library, f"{of}ForImageClassification")(config).eval()
    # From the folder, as everybody has it.
    processor = library.AutoImageProcessor.from_pretrained(saved)
    inputs = torch.cat(
        [processor(image, return_tensors="pt")["pixel_values"] for image in read(pictures)]
    )

    class Logits(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, pictures: Any) -> Any:
            return self.model(pictures).logits

    randomise(Logits(model), inputs, heads_of(model, len(LABELS)))
    model.save_pretrained(saved)
    model = library.AutoModelForImageClassification.from_pretrained(saved).eval()
    return Made(reference_of(Logits(model), inputs), {"safetensors": saved}, {})
