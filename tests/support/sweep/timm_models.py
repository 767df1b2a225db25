"""Forty architectures of timm, each the smallest of its family."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from support.sweep.made import LABELS, Made
from support.sweep.photographs import read
from support.sweep.random_weights import SPREAD, heads_of, randomise, reference_of

OPSETS = (18, 20, 23)

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet10t": {"size": 128},
    "test_efficientnet": {},
    "efficientnet_lite0": {"size": 128},
    "mobilenetv2_035": {"size": 128},
    "mobilenetv3_small_050": {"size": 128},
    "mobilenetv4_conv_small_035": {"size": 128},
    "lcnet_035": {"size": 128},
    "ghostnet_050": {"size": 128},
    "regnetx_002": {"size": 128},
    "regnety_002": {"size": 128},
    "rexnetr_100": {"size": 96},
    "repvgg_a0": {"size": 96},
    "mobileone_s0": {"size": 96},
    "densenet121": {"size": 96},
    "dla46_c": {"size": 128},
    "hrnet_w18_small": {"size": 96},
    "inception_v3": {"size": 139},
    # Logits that are spread more differ by 1e-3 from those in float64 in timm itself.
    "inception_v4": {"size": 139, "spread": 1.0},
    "nf_resnet26": {"size": 96},
    "test_nfnet": {},
    "ese_vovnet19b_slim_dw": {"size": 128},
    "resnest14d": {"size": 96},
    "convnext_atto": {"size": 128},
    "convnextv2_atto": {"size": 128},
    "inception_next_atto": {"size": 128},
    "edgenext_xx_small": {"size": 128},
    "mobilevit_xxs": {"size": 128},
    "mobilevitv2_050": {"size": 128},
    "poolformer_s12": {"size": 96},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 3},
    "deit_tiny_distilled_patch16_224": {"img_size": 64, "depth": 3},
    "eva02_tiny_patch14_224": {"img_size": 56, "depth": 3},
    "swin_tiny_patch4_window7_224": {"img_size": 112, "embed_dim": 48, "depths": (1, 1, 2, 1)},
    "swinv2_tiny_window8_256": {"img_size": 128, "embed_dim": 48, "depths": (1, 1, 2, 1)},
    "mixer_s32_224": {},
    "levit_128s": {},
    "hiera_tiny_224": {"embed_dim": 48},
    "sequencer2d_s": {"layers": (1, 1, 1, 1)},
    "pvt_v2_b0": {"size": 128},
    "test_coatnet": {},
    "xcit_nano_12_p16_224": {"img_size": 96, "depth": 2},
    "starnet_s050": {"size": 128},
}
"""By name: what differs from its defaults, as `create_model` takes it.

``size`` is that of its pictures, ``spread`` is for `randomise`.
"""


def make(name: str, opsets: Sequence[int], folder: Path, pictures: Sequence[Path]) -> Made:
    """Write folders of the architecture *name* below *folder*, and return them with what timm answers for *pictures*.

    ``safetensors`` is what timm's `save_for_hf` writes; ``opsetN`` has the same config.json beside model.onnx.
    """
    import timm
    import torch

    arguments = dict(ARCHITECTURES[name])
    size = arguments.pop("size", arguments.get("img_size"))
    spread = arguments.pop("spread", SPREAD)
    data = {"input_size": (3, size, size)} if size else {}
    images = read(pictures)
    torch.manual_seed(17)
    model = timm.create_model(name, num_classes=len(LABELS), **arguments).eval()
    heads = heads_of(model.get_classifier(), len(LABELS))
    randomise(model, _inputs(model, data, images), heads, spread)
    saved = folder / f"{name}-safetensors"
    timm.models.save_for_hf(
        model, saved, {"label_names": LABELS}, arguments, safe_serialization=True, data_config=data
    )
    # From here on it is what everybody has who loads the folder.
    model = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
    inputs = _inputs(model, {}, images)
    made = Made(reference_of(model, inputs), {"safetensors": saved}, {})
    programs = captured(model, inputs[:2])
    program = next(programs)
    for opset in opsets:
        exported = folder / f"{name}-opset{opset}"
        exported.mkdir()
        shutil.copyfile(saved / "config.json", exported / "config.json")
        while f"opset{opset}" not in made.folders | made.unmade:
            try:
                write_onnx(program, exported / "model.onnx", opset)
            # The exporter raises any exception where it meets what it does not know.
            except Exception as error:
                following = next(programs, None)
                if following is None:
                    told = " ".join(str(error).split())[:200]
                    made.unmade[f"opset{opset}"] = f"{type(error).__name__}: {told}"
                program = following or program
            else:
                made.folders[f"opset{opset}"] = exported
    return made


def _inputs(model: Any, data: dict[str, Any], images: Sequence[Image]) -> Any:
    """*images* [N, C, H, W] as timm makes them for *model*."""
    import timm
    import torch

    settings = timm.data.resolve_model_data_config(model, data)
    transform = timm.data.create_transform(**settings, is_training=False)
    return torch.stack([transform(image) for image in images])


def captured(model: Any, example: Any) -> Iterator[Any]:
    """*model* as programs that torch exports: for any number of pictures as far as it allows that, then for one.

    The later ones are without fused attention, of which the exporter does not take every form.
    """
    import torch

    for fused in (True, False):
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = module.fused_attn and fused
        for batch in (torch.export.Dim("batch"), torch.export.Dim.AUTO):
            try:
                yield torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
            # As above.
            except Exception:
                continue
    yield torch.export.export(model, (example[:1],))


def write_onnx(program: Any, path: Path, opset: int) -> None:
    """Write *program* to *path*; ValueError if the exporter does not get it to this *opset*."""
    import onnx
    import torch

    torch.onnx.export(
        program, (), str(path), opset_version=opset, dynamo=True, external_data=False, verbose=False
    )
    (written,) = (o.version for o in onnx.load(path).opset_import if not o.domain)
    if written != opset:
        raise ValueError(f"the exporter wrote opset {written}")
