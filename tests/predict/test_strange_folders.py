"""Folders with models as a stranger may make them: values that make no sense, links, pipes and odd characters."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from fluxdrop import config
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.predict.library import AddedModel, add_model
from fluxdrop.predict.origin.gather import gather
from fluxdrop.predict.origin.huggingface import CONFIG, PROCESSOR
from support import folders
from support.daemons import SAMPLES

PICTURE = SAMPLES / "round_circle_01.png"
Add = Callable[..., AddedModel]


@pytest.fixture
def add(root: Root) -> Add:
    """Adds what is in a path, on onnxruntime."""

    def call(source: Path, labels: list[str] | None = None, **options: object) -> AddedModel:
        settings = config.Settings(engine="onnxruntime")
        return add_model(root, source, settings, name="some", labels=labels, options=options)

    return call


def change(folder: Path, file: str, **values: Any) -> Path:
    """*folder* with other values in the JSON *file*."""
    content = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps(content))
    return folder


def saved(path: Path, operator: str, shape: list[int | str], **attributes: Any) -> Path:
    """A network of one *operator* that takes pictures of any size, whose output is declared with this *shape*."""
    height = numpy_helper.from_array(np.zeros((48, 1), np.float32), "height")
    inputs = ["x", "height"] if operator == "Add" else ["x"]
    made = helper.make_node(operator, inputs, ["y"], **attributes)
    graph = helper.make_graph(
        [made],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [height],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("values", "labels", "words"),
    [
        ({"id2label": {"0": "a", "2": "b", "5": "c"}}, ["0", "1", "2"], "does not have a name for"),
        ({"id2label": {"0": "a", "00": "b", "1": "c"}}, ["0", "1", "2"], "does not have a name for"),
        ({"id2label": {"0": "a", "1": None, "2": "c"}}, ["0", "1", "2"], "does not have a name for"),
        ({"id2label": {"0": "a", "1": " ", "2": "c"}}, ["0", "1", "2"], "does not have a name for"),
        ({"label2id": {"oak": 2, "maple": 1, "birch": 0}}, folders.LABELS, "contradicts its id2label"),
        ({"id2label": None, "label2id": {"b": 1, "a": 0, "c": 2}}, ["a", "b", "c"], ""),
        ({"problem_type": "banana"}, folders.LABELS, "'banana', which transformers does not know"),
        (
            {"id2label": {"0": "\x1b[31ma\n", "1": "\u202eb", "2": "\ud800"}},
            ["\ufffd[31ma", "\ufffdb", "\ufffd"],
            "",
        ),
    ],
)  # fmt: skip
def test_labels(
    add: Add, tmp_path: Path, values: dict[str, Any], labels: list[str], words: str
) -> None:
    """Names that contradict each other or are not one a number are told; none has characters a terminal acts on."""
    added = add(change(folders.optimum(tmp_path / "trees"), CONFIG, **values))

    assert (labels, "logits") == (added.bundle.spec.labels, added.bundle.spec.output)
    assert (words == "", True) == (not added.notes, words in " ".join(added.notes))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (PROCESSOR, {"image_std": [0, 1, 1]}, f"wrong value for std ({PROCESSOR}: image_std)"),
        (PROCESSOR, {"image_mean": [float("nan")] * 3}, f"for mean ({PROCESSOR}: image_mean)"),
        (PROCESSOR, {"image_mean": [0.5, 0.5]}, "mean has 2 values"),
        (PROCESSOR, {"image_mean": "0.5"}, "image_mean is '0.5'"),
        (PROCESSOR, {"size": {"shortest_edge": 9000}}, f"for resize_to ({PROCESSOR}: size)"),
        (PROCESSOR, {"resample": "bicubic"}, "resample is 'bicubic'"),
        (PROCESSOR, {"crop_pct": 0}, "crop_pct is 0"),
        (CONFIG, {"label2id": {"a": []}, "id2label": None}, f"{CONFIG} has a value that cannot"),
    ],
)
def test_values(add: Add, tmp_path: Path, file: str, values: dict[str, Any], words: str) -> None:
    """A value with which no picture can be made is refused by its file and key, not as one of the options."""
    folder = change(folders.optimum(tmp_path / "trees"), file, **values)
    with pytest.raises(FluxdropError) as caught:
        add(folder)

    assert ([True, True, False]) == [
        text in str(caught.value) for text in (words, str(folder), "options say")
    ]


@pytest.mark.parametrize("name", [CONFIG, PROCESSOR, "labels.txt", "metadata.json", "model.toml"])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_no_regular_files(tmp_path: Path, name: str, kind: str) -> None:
    """A pipe or a link to nothing beside a model is refused by its name: nothing waits, and nothing is left out."""
    folder = folders.optimum(tmp_path / "trees")
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("nowhere")

    with pytest.raises(FluxdropError, match=name):
        gather(folder, None, None)


def test_a_large_file(tmp_path: Path) -> None:
    """A JSON file of more than 64 MiB is refused before it is read as a whole."""
    with (tmp_path / CONFIG).open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(FluxdropError, match="more than 64 MiB"):
        gather(tmp_path, None, None)


def test_an_onnx_pipe(add: Add, tmp_path: Path) -> None:
    """A model that is a pipe is refused, alone and in a folder."""
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(FluxdropError, match="neither a regular file nor a folder"):
        add(tmp_path / "model.onnx")
    with pytest.raises(FluxdropError, match=r"has neither model\.onnx"):
        add(tmp_path)


def test_samples(add: Add, tmp_path: Path) -> None:
    """Of samples/ only its pictures are tried and copied: no side files, folders or what a link leads to."""
    folder = folders.optimum(tmp_path / "trees")
    samples = folder / "samples"
    samples.mkdir()
    shutil.copyfile(PICTURE, samples / "circle.png")
    for name in (".DS_Store", "README.md", ".circle.png"):
        (samples / name).write_text("no picture")
    (samples / "again").symlink_to("..")
    os.mkfifo(samples / "pipe")
    added = add(folder)
    (samples / "link.png").symlink_to(PICTURE)

    assert ["circle.png"] == [trial.name for trial in added.trials]
    assert ["circle.png"] == [path.name for path in (added.bundle.folder / "samples").iterdir()]
    with pytest.raises(FluxdropError, match=r"link\.png cannot be read: it is a symlink"):
        add_model(
            Root(added.bundle.folder.parents[2]),
            folder,
            config.Settings(engine="onnxruntime"),
            name="other",
            labels=None,
            options={},
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [("offset", "-4"), ("offset", "many"), ("length", "-1"), ("location", "w\0.bin")],
)
def test_external_data(add: Add, tmp_path: Path, key: str, value: str) -> None:
    """A place of a tensor that no file can have is refused in one sentence."""
    model = folders.linear_network()
    tensor = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(numpy_helper.to_array(tensor).tobytes())
    set_external_data(tensor, "w.bin")
    tensor.ClearField("raw_data")
    for entry in tensor.external_data:
        if entry.key == key:
            tensor.external_data.remove(entry)
    entry = tensor.external_data.add()
    entry.key, entry.value = key, value
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(FluxdropError, match=r"m\.onnx cannot be used: a part of it cannot be read"):
        add(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "words"),
    [
        ("Relu", ["N", 3, "a", "b"], {}, "is a segmenter, a text detector or another"),
        ("ReduceMean", ["N", 3, "w"], {"axes": [2], "keepdims": 0}, "is a detector, a text recogn"),
        ("Softmax", ["N", 3, "a", "b"], {"axis": 1}, "is a segmenter, a text detector or another"),
        # It takes lines of one height only, as text recognisers do.
        ("Add", ["N", 3, 48, "b"], {}, "3 numbers for each of 48 x 320 places"),
        ("GlobalAveragePool", ["N", 3, 1, 1], {}, "Give --size"),
    ],
)
def test_free_sizes(
    add: Add,
    tmp_path: Path,
    operator: str,
    shape: list[int | str],
    attributes: dict[str, Any],
    words: str,
) -> None:
    """What is not served is refused at once, even where it leaves the size of its pictures free."""
    path = saved(tmp_path / "free.onnx", operator, shape, **attributes)
    with pytest.raises(FluxdropError) as caught:
        add(path)

    assert words in str(caught.value)


def test_other_output(add: Add, tmp_path: Path) -> None:
    """Another kind of output than the files' leaves out what they say of theirs: an embedding has no labels."""
    folder = folders.optimum(tmp_path / "trees")
    change(folder, CONFIG, problem_type="multi_label_classification")
    vector = add(folder, output="embedding").bundle.spec

    assert ("embedding", [], "none") == (vector.output, vector.labels, vector.activation)
    assert ("option", False) == (vector.origin["output"], "labels" in vector.origin)


def test_tiny_std(add: Add, tmp_path: Path) -> None:
    """A number that float32 does not have is refused before it divides anything."""
    with pytest.raises(FluxdropError, match=r"Expected `float` >= 1e-30 - at `\$\.input\.std"):
        add(folders.optimum(tmp_path / "trees"), std=[1e-320])
