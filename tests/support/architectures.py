"""Image classifiers out of transformers: small, but with every part, and weights that tell pictures apart."""

from __future__ import annotations

import warnings
from typing import Any

LABELS = 5

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "ResNet": {
        "embedding_size": 16,
        "hidden_sizes": [32, 64],
        "depths": [2, 2],
        "layer_type": "bottleneck",
    },
    "MobileNetV1": {"image_size": 64, "depth_multiplier": 0.25},
    "MobileNetV2": {"image_size": 64, "depth_multiplier": 0.25},
    "EfficientNet": {
        "image_size": 64,
        "width_coefficient": 0.25,
        "depth_coefficient": 0.5,
        "hidden_dim": 320,
    },
    "ConvNext": {"image_size": 64, "num_stages": 2, "hidden_sizes": [16, 32], "depths": [2, 2]},
    "RegNet": {
        "embedding_size": 16,
        "hidden_sizes": [32, 64],
        "depths": [2, 2],
        "groups_width": 16,
    },
    "ViT": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
    # torch.onnx cannot export the memory layout that its other attention leaves behind.
    "Swin": {
        "image_size": 64,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "attn_implementation": "eager",
    },
    "DeiT": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
}
"""By the names that transformers gives them."""


NEWER_OPSETS: dict[tuple[str, int], dict[str, Any]] = {
    ("ViT", 23): CONFIGURATIONS["ViT"],
    ("DeiT", 24): CONFIGURATIONS["DeiT"],
    ("Dinov2WithRegisters", 23): CONFIGURATIONS["ViT"] | {"mlp_ratio": 2},
    ("Siglip", 24): {"vision_config": CONFIGURATIONS["ViT"], "image_size": 32},
}
"""Architectures that torch exports with ONNX's Attention, by the opset that has it."""


def exported(
    name: str, options: dict[str, Any] | None = None, **torch_options: Any
) -> tuple[bytes, bytes]:
    """The architecture *name* as torch.onnx writes it for any batch: as it is traced, and optimised.

    *options* instead of `CONFIGURATIONS` make another size of it; *torch_options* go to torch.onnx.
    """
    import torch
    import transformers

    torch.manual_seed(20)
    options = options or CONFIGURATIONS[name]
    size = options.get("image_size", 64)
    config = getattr(transformers, f"{name}Config")(num_labels=LABELS, **options)
    head = "WithTeacher" if name == "DeiT" else ""
    model = getattr(transformers, f"{name}ForImageClassification{head}")(config)
    _randomise(model, torch.randn(8, 3, size, size))

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(pixel_values).logits
            return logits

    program = export(Logits(), torch.randn(2, 3, size, size), **torch_options)
    traced = program.model_proto.SerializeToString()
    program.optimize()
    return traced, program.model_proto.SerializeToString()


def export(model: Any, pictures: Any, path: Any = None, **options: Any) -> Any:
    """*model* by PyTorch's current exporter, for any number of *pictures*."""
    import torch

    with warnings.catch_warnings():
        # The exporter's own code warns of what it calls itself.
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            model.eval(),
            (pictures,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            optimize=path is not None,
            verbose=False,
            **options,
        )


def _randomise(model: Any, pictures: Any) -> None:
    """Weights with which signals keep their size, and for the BatchNorms statistics of *pictures*.

    As they are initialised for training, deep models give every picture the same answer.
    """
    from torch import nn, no_grad

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Convolutions and products; its second dimension is what a number is summed over.
                nn.init.kaiming_normal_(parameter)
            else:
                nn.init.uniform_(parameter, -0.3, 1.0)
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        model(pictures)
        model.eval()
