"""Folders with models as other tools write them, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = ["oak", "maple", "birch"]


def linear_network(size: int | str = 32, labels: int = 3) -> onnx.ModelProto:
    """Logits of the means of the channels."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["m"]),
            helper.make_node("Flatten", ["m"], ["f"]),
            helper.make_node("Gemm", ["f", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", labels])],
        [numpy_helper.from_array(np.eye(3, labels, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def optimum(folder: Path) -> Path:
    """A classifier as Optimum exports it: model.onnx beside the two JSON files of transformers."""
    folder.mkdir()
    onnx.save(linear_network("height"), folder / "model.onnx")
    config: dict[str, Any] = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "id2label": dict(enumerate(LABELS)),
    }
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def vit(folder: Path, **changes: Any) -> Path:
    """A small vision transformer with its image processor, saved by transformers."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    config: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
        "id2label": dict(enumerate(LABELS)),
        "initializer_range": 0.5,
    }
    torch.manual_seed(20)
    ViTForImageClassification(ViTConfig(**config | changes)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
