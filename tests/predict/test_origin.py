"""What a model's file and the files beside it say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.origin.facts import GUESSED, OPTION, Facts
from fluxdrop.predict.origin.gather import add_guesses, gather
from fluxdrop.predict.origin.locate import onnx_file

TIMM: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 2,
    "label_names": ["cat", "dog"],
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    },
}


def network(
    *first: onnx.NodeProto,
    constant: float | list[float] = 0.0,
    end: str | None = None,
    element: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """A network that begins with *first* from x to p, with the constant c, and may end in *end*."""
    begins = list(first) or [helper.make_node("Cast", ["x"], ["p"], to=TensorProto.FLOAT)]
    nodes = [
        *begins,
        helper.make_node("GlobalAveragePool", ["p"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["l" if end else "y"]),
    ]
    if end:
        nodes.append(helper.make_node(end, ["l"], ["y"]))
    values = np.array(constant, dtype=np.float32).reshape(-1, 1, 1)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "w"),
            numpy_helper.from_array(values, "c"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, metadata or {})
    return model


def beside(folder: Path, **files: Any) -> Path:
    """*folder* with JSON files; a text is written as it is."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_timm(tmp_path: Path) -> None:
    """A config.json of timm says the labels, the size before the crop, the filter and the normalisation."""
    facts = gather(beside(tmp_path, config__json=TIMM), network(), None)

    assert (["cat", "dog"], "logits") == (facts.top["labels"], facts.top["output"])
    assert {
        "size": [64, 64],
        "mode": "RGB",
        "resize": "crop",
        "resize_to": 73,
        "filter": "bilinear",
        "resampler": "torchvision",
        "scale": 255.0,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    } == facts.input
    assert "config.json: crop_pct" == facts.origin["resize_to"]


def test_timm_defaults(tmp_path: Path) -> None:
    """What a config.json of timm leaves out is timm's own default; without classes there is an embedding."""
    config = {
        "architecture": "resnet18",
        "num_classes": 0,
        "pretrained_cfg": {"crop_mode": "border"},
    }
    facts = gather(beside(tmp_path, config__json=config), network(), None)

    assert "embedding" == facts.top["output"]
    assert ([224, 224], "letterbox", 256, "bicubic", "#7c7468") == tuple(
        facts.input[key] for key in ("size", "resize", "resize_to", "filter", "background")
    )
    assert "config.json: timm's default mean" == facts.origin["mean"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"id2label": {"1": "dog", "0": "cat"}}, ("logits", "none", ["cat", "dog"])),
        (
            {"problem_type": "multi_label_classification", "id2label": {"0": "a", "1": "b"}},
            ("multi-label", "sigmoid", ["a", "b"]),
        ),
        (
            {"problem_type": "regression", "id2label": {"0": "LABEL_0"}},
            ("regression", "none", None),
        ),
        ({"id2label": {"0": "age"}}, ("regression", "none", ["age"])),
    ],
)
def test_kinds(tmp_path: Path, config: dict[str, Any], expected: Any) -> None:
    """The problem type of a config.json of transformers is the kind of output, and id2label has the labels."""
    config |= {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    top = gather(beside(tmp_path, config__json=config), None, None).top

    assert expected == (top["output"], top.get("activation", "none"), top.get("labels"))


def test_equal_labels(tmp_path: Path) -> None:
    """Two labels of the same name get their numbers, and the user is told."""
    config = TIMM | {"label_names": ["crane", "crane"]}
    facts = gather(beside(tmp_path, config__json=config), None, None)

    assert ["crane", "crane (1)"] == facts.top["labels"]
    assert any("both crane" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("DetrForObjectDetection", "an object detector"),
        ("SegformerForSemanticSegmentation", "a segm"),
    ],
)
def test_other_tasks(tmp_path: Path, architecture: str, words: str) -> None:
    """A folder whose config.json names another task is refused by it."""
    config = {"model_type": "some", "architectures": [architecture]}

    with pytest.raises(FluxdropError, match=words):
        gather(beside(tmp_path, config__json=config), None, None)


def test_the_graph_knows_better(tmp_path: Path) -> None:
    """A softmax or a sigmoid at the graph's end, and integers at its beginning, are believed more than the files."""
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    folder = beside(tmp_path, config__json=config | {"id2label": {"0": "a", "1": "b"}})
    processor = {"image_processor_type": "ViTImageProcessor", "size": 64}
    beside(folder, preprocessor_config__json=processor)
    bare = gather(folder, network(), None)
    ended = gather(folder, network(end="Softmax"), None)
    pixels = gather(folder, network(element=TensorProto.UINT8), None)
    beside(folder, config__json=config | {"problem_type": "multi_label_classification"})
    several = gather(folder, network(end="Sigmoid"), None)

    assert ("logits", False) == (bare.top["output"], "output" in ended.top)
    assert ([True, False]) == ["mean" in bare.input, "mean" in pixels.input]
    assert ("multi-label", False) == (several.top["output"], "activation" in several.top)


def test_ultralytics() -> None:
    """A classifier of ultralytics has its names and size in the metadata."""
    metadata = {"names": "{0: 'cat', 1: 'dog'}", "imgsz": "[48, 64]", "task": "classify"}
    model = network(metadata=metadata)
    facts = gather(Path("best.onnx"), model, None)

    assert (["cat", "dog"], [64, 48], "crop", "torchvision", 255.0) == (
        facts.top["labels"],
        *(facts.input[key] for key in ("size", "resize", "resampler", "scale")),
    )
    assert "best.onnx: its metadata names" == facts.origin["labels"]


@pytest.mark.parametrize(
    ("pixel_range", "expected"),
    [
        ("NominalRange_0_255", (1.0, [0.0], [1.0])),
        ("Normalized_0_1", (255.0, [0.0], [1.0])),
        ("normalized_1_1", (255.0, [0.5], [0.5])),
    ],
)
def test_windows_ml(pixel_range: str, expected: Any) -> None:
    """The metadata of Windows ML and Custom Vision say the order of the channels and the range of the pixels."""
    metadata = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": pixel_range}
    facts = gather(Path("model.onnx"), network(metadata=metadata), None)

    assert ("BGR", *expected) == tuple(facts.input[key] for key in ("mode", "scale", "mean", "std"))


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({"character": "0\n180"}, ["0", "180"]),
        ({"labels": '["cat", "dog"]'}, ["cat", "dog"]),
        ({"classes": "cat, dog"}, ["cat", "dog"]),
        ({"id2label": '{"1": "dog", "0": "cat"}'}, ["cat", "dog"]),
        ({"names": "a person's name"}, None),
        ({"names": "{1: 'b', 3: 'd'}"}, None),
        ({"names": "__import__('os').getcwd()"}, None),
    ],
)
def test_names_in_metadata(metadata: dict[str, str], labels: list[str] | None) -> None:
    """Labels are taken from the keys that exporters use, and nothing is read into what is no list of them."""
    assert labels == gather(Path("m.onnx"), network(metadata=metadata), None).top.get("labels")


@pytest.mark.parametrize(
    ("operator", "constant", "scale"),
    [
        ("Mul", 1 / 255, 1.0),
        ("Div", 127.5, 1.0),
        ("Sub", [123.7, 116.3, 103.5], 1.0),
        ("Sub", 0.5, None),
        ("Mul", 2.0, None),
        ("Div", [0.2, 0.2, 0.2], None),
    ],
)
def test_rescaling_in_the_graph(operator: str, constant: Any, scale: float | None) -> None:
    """A network that begins by rescaling pixels gets them from 0 to 255."""
    first = helper.make_node(operator, ["x", "c"], ["p"])
    facts = gather(Path("m.onnx"), network(first, constant=constant), None)

    assert scale == facts.input.get("scale")


def test_teachable_machine(tmp_path: Path) -> None:
    """Teachable Machine's metadata.json has the labels, and its pictures go from -1 to 1."""
    metadata = {"packageName": "@teachablemachine/image", "labels": ["on", "off"], "imageSize": 96}
    facts = gather(beside(tmp_path, metadata__json=metadata), None, None)

    assert (["on", "off"], [96, 96], "fit", 127.5, [1.0]) == (
        facts.top["labels"],
        *(facts.input[key] for key in ("size", "resize", "scale", "mean")),
    )


def test_label_file(tmp_path: Path) -> None:
    """labels.txt beside the model has the labels, also with their numbers; one beside a single file is not read."""
    folder = beside(tmp_path, labels__txt="0 cat\n1 dog\n", model__onnx="")

    assert ["cat", "dog"] == gather(folder, None, None).top["labels"]
    assert {} == gather(folder / "model.onnx", None, None).top


def test_another_resize() -> None:
    """Another way to resize than the files' voids their size before the crop: a letterbox would lose its border."""
    facts = Facts()
    facts.input |= {"size": [64, 64], "resize": "crop", "resize_to": 73}
    facts.origin |= {"resize": "config.json", "resize_to": "config.json"}

    facts.override({}, {"resize": "letterbox"})

    assert {"size": [64, 64], "resize": "letterbox"} == facts.input
    assert {"resize": OPTION} == facts.origin


def test_precedence(tmp_path: Path) -> None:
    """model.toml is believed more than other files, these more than the metadata, and the user most of all."""
    toml = "[input]\nstd = [0.5]\nmean = [0.1]\n\n[origin]\nstd = 'a paper'\n"
    folder = beside(tmp_path, config__json=TIMM, model__toml=toml)
    metadata = {"Image.NominalPixelRange": "NominalRange_0_255", "labels": "x,y"}
    facts = gather(folder, network(metadata=metadata), None)
    facts.override({"labels": ["a", "b"]}, {"mean": [0.2], "size": [32, 32]})

    assert (["a", "b"], 255.0, [0.5], [0.2], [32, 32]) == (
        facts.top["labels"],
        *(facts.input[key] for key in ("scale", "std", "mean", "size")),
    )
    assert ("a paper", OPTION, "config.json: timm's pictures are from 0 to 1") == tuple(
        facts.origin[key] for key in ("std", "labels", "scale")
    )
    # It belongs to the size that the user replaced.
    assert "resize_to" not in facts.input


def test_guesses() -> None:
    """That pixels go from 0 to 1 is said to be guessed, unless something states it."""
    nothing, something = Facts(), Facts(input={"std": [1.0]})
    add_guesses(nothing)
    add_guesses(something)

    assert (True, {}) == (nothing.origin["scale"].startswith(GUESSED), something.origin)


def test_locate(tmp_path: Path) -> None:
    """A folder's model is model.onnx, else Optimum's onnx/model.onnx, else its only ONNX file."""
    (tmp_path / "best.onnx").touch()
    only = onnx_file(tmp_path)
    (tmp_path / "other.onnx").touch()
    with pytest.raises(FluxdropError, match="several ONNX files"):
        onnx_file(tmp_path)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    optimum = onnx_file(tmp_path)
    (tmp_path / "model.onnx").touch()

    assert ["best.onnx", "onnx/model.onnx", "model.onnx"] == [
        path.relative_to(tmp_path).as_posix()
        for path in (only, optimum, onnx_file(tmp_path))
        if path
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", "is a pickle"),
        ("best.pt", "is a pickle"),
        ("saved_model.pb", "is a model of Keras"),
        ("keras_model.h5", "in its earlier format"),
        ("notes.md", "has neither model.onnx, flux_model.jl nor model.safetensors"),
    ],
)
def test_what_is_no_model(tmp_path: Path, name: str, words: str) -> None:
    """Pickles are never loaded; each of them, and a model of Keras, is refused with what to do."""
    (tmp_path / name).touch()

    with pytest.raises(FluxdropError, match=words) as raised:
        onnx_file(tmp_path)
    assert raised.value.hint


def test_weights_alone(tmp_path: Path) -> None:
    """A folder with safetensors has to be exported; the file alone does not say which network it is for."""
    (tmp_path / "model.safetensors").touch()

    assert onnx_file(tmp_path) is None
    with pytest.raises(FluxdropError, match="weights only"):
        onnx_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", ["{", "[]", "\ud800".encode("utf-8", "replace").decode() + "{"])
def test_broken_files(tmp_path: Path, content: str) -> None:
    """A file that is not JSON is named in one sentence."""
    with pytest.raises(FluxdropError, match=r"config\.json"):
        gather(beside(tmp_path, config__json=content), None, None)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("preprocessor_config.json", {"rescale_factor": {"by": 255}}),
        ("preprocessor_config.json", {"rescale_factor": 0}),
        ("config.json", TIMM | {"pretrained_cfg": [1, 2]}),
        ("config.json", TIMM | {"pretrained_cfg": {"input_size": "large"}}),
        ("config.json", TIMM | {"pretrained_cfg": {"input_size": [3, 1e999, 64]}}),
    ],
)
def test_values_of_another_kind(tmp_path: Path, file: str, values: dict[str, Any]) -> None:
    """A value that makes no sense where it is is refused with the name of its file."""
    config = {"model_type": "vit", "architectures": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / file).write_text(json.dumps(values))
    with pytest.raises(FluxdropError, match=rf"{file} has a value that cannot be used"):
        gather(tmp_path, None, None)


def test_size_that_is_infinite() -> None:
    """A size in the metadata that is no number of pixels is refused, as other values that make no sense."""
    model = network(metadata={"task": "classify", "names": "{0: 'a'}", "imgsz": "[1e999, 64]"})
    with pytest.raises(FluxdropError, match="has a value that cannot be used"):
        gather(Path("model.onnx"), model, None)
