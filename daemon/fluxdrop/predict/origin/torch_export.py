"""Write a folder of transformers or timm as ONNX: ``python -m fluxdrop.predict.origin.torch_export FOLDER OUT``.

It runs in a process of its own, as torch is never imported into fluxdrop's. The pictures in ``OUT/pictures`` go through
the original's own image processor and network. OUT gets

- ``model.onnx``,
- ``reference.npz``: ``outputs`` [N, K] of the pictures in the order of their names, and ``inputs`` [N, C, H, W],
- ``answer.json``: an `Answer`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fluxdrop.errors import FluxdropError

_OPSET = 18
_LARGEST_EMBEDDED = 1_500_000_000
"""Bytes of weights from which they are written beside the file; 2 GiB is the limit of one file."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the process answers."""

    error: str | None = None
    """Why there is no model, as a sentence's end; None when there is one."""
    library: str = ""
    """The library and its version."""
    processor: str = ""
    """What made the pictures."""
    resampler: str = ""
    """Whose arithmetic it resizes with: a value of ``input.resampler``; empty if that is not known."""
    labels: list[str] | None = None
    """The labels, where the library knows what the files do not say."""
    table: dict[str, tuple[Any, str]] = {}
    """Keys of ``[input]`` that the library knows, each with its source."""


class Original(NamedTuple):
    """A model in its own library."""

    library: str
    processor: str
    resampler: str
    labels: list[str] | None
    model: Any
    """A torch module: pictures [N, C, H, W] to numbers [N, K]."""
    process: Callable[[Any], Any]
    """One PIL picture to a tensor [1, C, H, W]."""


def answer_with(export: Callable[[], Answer], out: Path) -> None:
    """Write what *export* returns, or why it failed, to ``answer.json`` in *out*."""
    try:
        answer = export()
    except FluxdropError as error:
        answer = Answer(error=error.message)
    # Any exception of the libraries is a reason why the model cannot be had; the log has the traceback.
    except Exception as error:
        import traceback

        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer = Answer(error=f"{type(error).__name__}: {(lines or ['no message'])[0][:300]}")
    (out / "answer.json").write_bytes(msgspec.json.encode(answer))


def _export(folder: Path, out: Path) -> Answer:
    import numpy as np
    import torch
    from PIL import Image

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_bytes())
    load = _load_timm if isinstance(config.get("architecture"), str) else _load_transformers
    original = load(folder, config)
    original.model.eval()
    with torch.inference_mode():
        inputs = []
        for path in sorted((out / "pictures").iterdir()):
            with Image.open(path) as picture:
                inputs.append(original.process(picture.copy()).float())
        outputs = [original.model(tensor).float().numpy() for tensor in inputs]
    _write_onnx(original.model, inputs[0], out / "model.onnx")
    shapes = {tuple(tensor.shape) for tensor in inputs}
    if len(shapes) > 1:
        raise FluxdropError("its image processor makes tensors of another size for each picture")
    np.savez(
        out / "reference.npz",
        outputs=np.concatenate(outputs),
        inputs=np.concatenate([tensor.numpy() for tensor in inputs]),
    )
    return Answer(
        library=original.library,
        processor=original.processor,
        resampler=original.resampler,
        labels=original.labels,
    )


def _load_transformers(folder: Path, config: dict[str, Any]) -> Original:
    if find_spec("torchvision"):
        _import_torchvision()
    import torch
    import transformers
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    if config.get("auto_map"):
        raise FluxdropError("it needs code of its own (auto_map), which fluxdrop does not run")
    options = {
        "local_files_only": True,
        "use_safetensors": True,
        "dtype": torch.float32,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    try:
        # torch's exporter fails at some of the attentions that are faster, such as Swin's.
        model, loaded = AutoModelForImageClassification.from_pretrained(
            folder, attn_implementation="eager", **options
        )
    except (ValueError, TypeError):
        model, loaded = AutoModelForImageClassification.from_pretrained(folder, **options)
    lacking = [*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])]
    if lacking:
        raise FluxdropError(f"its weights lack {sorted(lacking)[0]}, which would be random")
    images: Any = AutoImageProcessor
    processor = images.from_pretrained(folder, local_files_only=True)

    class Logits(torch.nn.Module):
        """Only what is the answer of all that the model returns."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pictures: Any) -> Any:
            answer = self.model(pictures)
            # PP-LCNet's logits have another name.
            return answer.logits if "logits" in answer else answer.last_hidden_state

    def process(picture: Any) -> Any:
        mode = "L" if config.get("num_channels") == 1 else "RGB"
        return processor(picture.convert(mode), return_tensors="pt")["pixel_values"]

    return Original(
        f"transformers {transformers.__version__}",
        type(processor).__name__,
        {"torchvision": "torch", "pil": "pillow"}.get(getattr(processor, "backend", ""), ""),
        None,
        Logits(),
        process,
    )


def _load_timm(folder: Path, config: dict[str, Any]) -> Original:
    _import_torchvision()
    import timm

    if not (folder / "model.safetensors").is_file():
        raise FluxdropError("it has no model.safetensors")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    settings = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**settings, is_training=False)

    def process(picture: Any) -> Any:
        return transform(picture.convert("L" if settings["input_size"][0] == 1 else "RGB"))[None]

    stated = config.get("pretrained_cfg") or config
    labels = None
    if not (config.get("label_names") or stated.get("label_names") or stated.get("labels")):
        labels = _data_set_labels(model)
    return Original(f"timm {timm.__version__}", "create_transform", "", labels, model, process)


def _data_set_labels(model: Any) -> list[str] | None:
    """Return the labels of the data set that timm finds the model was trained on, if it knows one."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    # The weights of a fine-tuned model say nothing of its labels, however many there are.
    if not (model.pretrained_cfg.get("tag") or "") or not infer_imagenet_subset(model):
        return None
    information = ImageNetInfo(infer_imagenet_subset(model))
    return [information.index_to_description(index) for index in range(model.num_classes)]


def _import_torchvision() -> None:
    """Import torchvision, also where its compiled part does not fit torch.

    timm and transformers only need the part that is Python. That fails to import for want of the schema of two
    operators, which are for detectors.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        libraries: Any = torch.library
        library = libraries.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        globals()["_torchvision_operators"] = library  # they are gone when the object is
        import torchvision  # noqa: F401


def _write_onnx(model: Any, example: Any, path: Path) -> None:
    """Export *model*, for any number of pictures if that is possible."""
    import torch

    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    common: dict[str, Any] = {
        "opset_version": _OPSET,
        "input_names": ["pixel_values"],
        "output_names": ["logits"],
    }
    modern = common | {"dynamo": True, "external_data": size > _LARGEST_EMBEDDED, "verbose": False}
    two = torch.cat([example, example])
    attempts: list[tuple[Any, dict[str, Any]]] = [
        (two, modern | {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}),
        (two, modern | {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)}),
        (example, modern),
        (two, common | {"dynamo": False, "dynamic_axes": {"pixel_values": {0: "batch"}}}),
    ]
    failure: Exception | None = None
    for pictures, options in attempts:
        try:
            torch.onnx.export(model, (pictures,), str(path), **options)
        # The exporter raises any exception where it meets what it does not know.
        except Exception as error:
            failure = failure or error
        else:
            return
    assert failure is not None
    raise failure


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    answer_with(lambda: _export(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[2]))
