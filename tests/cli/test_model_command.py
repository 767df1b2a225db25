"""``fluxdrop model``: adding, listing, checking and changing models."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fluxdrop import config
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine
from support.daemons import ends, failures, fluxdrop, results, serving
from support.needs import needs_julia

pytestmark = pytest.mark.slow

EMBEDDED = load_bundle("round-or-angular").onnx


def model(*nodes: onnx.NodeProto, shape: tuple[int | str, ...] = ("N", 3, 8, 8)) -> onnx.ModelProto:
    """A model of *nodes* from x to y, with a weight w of (3, 5) and a bias b of 5."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [
            numpy_helper.from_array(np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5), "w"),
            numpy_helper.from_array(np.arange(5, dtype=np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def classifier() -> onnx.ModelProto:
    """The mean of each channel, and a linear layer: logits of five labels."""
    return model(
        helper.make_node("GlobalAveragePool", ["x"], ["m"], name="mean"),
        helper.make_node("Flatten", ["m"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="linear"),
    )


def two_outputs() -> onnx.ModelProto:
    """A model whose output y adds b to what its output z is."""
    made = model(
        helper.make_node("GlobalAveragePool", ["x"], ["m"], name="mean"),
        helper.make_node("Flatten", ["m"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w"], ["z"], name="product"),
        helper.make_node("Add", ["z", "b"], ["y"], name="sum"),
    )
    made.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5]))
    return made


def foreign() -> onnx.ModelProto:
    """A model with an operator of somebody's own."""
    made = model(helper.make_node("Frob", ["x"], ["y"], name="f", domain="com.acme"))
    made.opset_import.append(helper.make_opsetid("com.acme", 1))
    return made


def add(root: Root, path: Path, *flags: str, **settings: str) -> dict[str, Any]:
    """What `model add --json` answers; fails unless it worked."""
    ended = fluxdrop("model", "add", path, "--root", root.path, "--json", *flags, **settings)
    assert 0 == ended.returncode, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


@pytest.mark.parametrize("engine", [pytest.param("julia", marks=needs_julia), "onnxruntime"])
def test_add(root: Root, tmp_path: Path, engine: str) -> None:
    """A model added without a word gets its size, mode, labels and kind of output from itself."""
    path = tmp_path / "five.onnx"
    onnx.save(classifier(), path)

    answer = add(root, path, engine=engine)
    bundle = load_bundle("five", root.models)

    assert (engine, True) == (answer["engine"], (answer["difference"] or 0) < 1e-4)
    assert ("onnxruntime" == engine) == (answer["difference"] is None)
    assert ((8, 8), "RGB", "logits") == (
        bundle.spec.input.size,
        bundle.spec.input.mode,
        bundle.spec.output,
    )
    assert ["0", "1", "2", "3", "4"] == bundle.spec.labels


@needs_julia
def test_compiled_forms_go_with_their_models(root: Root, tmp_path: Path) -> None:
    """What was compiled of a model, which is as large as its weights, goes when it is replaced or removed."""
    path = tmp_path / "five.onnx"
    onnx.save(classifier(), path)
    other = classifier()
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(5, np.float32), "b"))

    add(root, path, engine="julia")
    (first,) = root.graphs.iterdir()
    onnx.save(other, path)
    add(root, path, "--replace", engine="julia")
    (second,) = root.graphs.iterdir()
    removed = fluxdrop("model", "remove", "five", "--root", root.path)

    assert 0 == removed.returncode, removed.stderr
    assert first != second
    assert [] == list(root.graphs.iterdir())


def test_add_with_options(root: Root, tmp_path: Path) -> None:
    """Every flag of add ends in model.toml, and the bundle's folder can be added again elsewhere."""
    labels = tmp_path / "labels.txt"
    labels.write_text("angular\nround\n")
    flags = ["--name", "mine", "--labels", str(labels), "--size", "64", "--mode", "L"]
    flags += ["--crop-pct", "0.875", "--pad", "corner", "--resampler", "torchvision"]
    flags += ["--background", "#000000"]
    flags += ["--resize", "crop", "--filter", "lanczos", "--scale", "128", "--mean", "1"]
    flags += ["--std", "2", "--layout", "NCHW", "--output", "probabilities"]

    add(root, EMBEDDED, *flags, engine="onnxruntime")
    add(root, root.models / "mine", "--name", "again", engine="onnxruntime")
    mine, again = (load_bundle(name, root.models).spec for name in ("mine", "again"))

    assert mine == again
    assert (73, "corner", "torchvision", "#000000") == (
        mine.input.resize_to,
        mine.input.pad,
        mine.input.resampler,
        mine.input.background,
    )
    assert (["angular", "round"], "crop", "lanczos", 128.0, (1.0,), (2.0,)) == (
        mine.labels,
        mine.input.resize,
        mine.input.filter,
        mine.input.scale,
        mine.input.mean,
        mine.input.std,
    )


def test_add_labels_that_occur_twice(root: Root, tmp_path: Path) -> None:
    """Labels of the same name get their numbers, and a warning that names both lines; a preset ends in model.toml."""
    path = tmp_path / "five.onnx"
    onnx.save(classifier(), path)
    labels = tmp_path / "labels.csv"
    labels.write_bytes(
        b"\xef\xbb\xbfindex,label\r\n0,crane\r\n1,cat\r\n2,dog\r\n3,fox\r\n4,crane\r\n"
    )
    flags = ["--labels", labels, "--preset", "imagenet", "--filter", "bicubic"]

    ended = fluxdrop("model", "add", path, "--root", root.path, *flags, engine="onnxruntime")
    spec = load_bundle("five", root.models).spec

    assert (0, ["crane", "cat", "dog", "fox", "crane (4)"]) == (ended.returncode, spec.labels)
    assert "line 2 and line 6 of labels.csv are both crane" in ended.stderr
    assert (9, "crop", "bicubic", (0.485, 0.456, 0.406)) == (
        spec.input.resize_to,
        spec.input.resize,
        spec.input.filter,
        spec.input.mean,
    )


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("input = 3", "model.toml is wrong: its input is not a table"),
        ("labels = [", "model.toml is wrong: "),
        ("labels = 1979-05-27", "model.toml is wrong: Expected `array`"),
        ("lables = []", "model.toml is wrong: Object contains unknown field"),
    ],
)
def test_add_refuses_a_folder(root: Root, tmp_path: Path, toml: str, words: str) -> None:
    """A folder whose model.toml is wrong is refused by that file's name, whatever is wrong with it."""
    folder = tmp_path / "five"
    folder.mkdir()
    onnx.save(classifier(), folder / "model.onnx")
    (folder / "model.toml").write_text(toml)

    ended = fluxdrop("model", "add", folder, "--root", root.path)

    assert (2, [True, True]) == (
        ended.returncode,
        [w in ended.stderr for w in (words, str(folder))],
    )
    assert [] == list(root.models.iterdir())


@pytest.mark.parametrize("engine", [pytest.param("julia", marks=needs_julia), "onnxruntime"])
def test_output_name(root: Root, tmp_path: Path, engine: str) -> None:
    """Of several outputs that could have the labels' numbers the one that is named has them."""
    path = tmp_path / "two.onnx"
    onnx.save(two_outputs(), path)
    black = np.zeros((1, 3, 8, 8), np.float32)
    found = {}

    for name in ("y", "z"):
        add(root, path, "--name", name, "--output-name", name, engine=engine)
        settings = config.load(root.path, {"engine": engine})
        with closing(open_engine(settings, load_bundle(name, root.models))) as opened:
            found[name] = opened.predict(black).tolist()

    assert {"y": [[0, 1, 2, 3, 4]], "z": [[0] * 5]} == found


@pytest.mark.parametrize(
    ("made", "flags", "words"),
    [
        (
            model(helper.make_node("Det", ["x"], ["y"], name="d")),
            ["--output", "logits"],
            "node d (Det)",
        ),
        (foreign(), [], "node f (com.acme.Frob): this operator is not supported"),
        (
            two_outputs(),
            ["--labels", "a,b,c,d,e"],
            "for each label: y [N, 5], z [N, 5]",
        ),
        (two_outputs(), ["--output-name", "u"], "it has no output 'u'"),
        (classifier(), ["--size", "16x16", "--mode", "L"], "its input x has shape"),
        (classifier(), ["--labels", "a,b"], "gives 5 numbers a picture, and there are 2 labels"),
        (classifier(), ["--size", "big"], "--size is 'big'"),
        (classifier(), ["--size", "8x8x3"], "--size is '8x8x3', not a number of pixels or"),
        (classifier(), ["--resize-to", "0.5"], "--resize-to is '0.5', not a number of pixels or"),
        (classifier(), ["--crop-pct", "87.5"], "--crop-pct is 87.5, not a part of"),
        (classifier(), ["--resize-to", "9", "--crop-pct", "0.9"], "both say what to resize to"),
        (classifier(), ["--preset", "imagnet"], "There is no preset imagnet"),
        (classifier(), ["--labels", "nowhere.txt"], "There is no file nowhere.txt"),
        (classifier(), ["--mean", "nan"], "--mean is 'nan'"),
        (classifier(), ["--resize", "cut"], "What the options say is wrong"),
        (classifier(), ["--labels", str(EMBEDDED)], "cannot be read as a list of labels"),
        (classifier(), ["--name", "../up"], "cannot be a model's name"),
        (classifier(), ["--name", "round-or-angular"], "There is a model round-or-angular already"),
        (classifier(), ["--mean", "1,2"], "input.mean has 2 values"),
        (b"no model", [], "is not a valid ONNX model"),
        (None, [], "There is no file"),
    ],
)
@needs_julia
def test_add_refuses(
    root: Root, tmp_path: Path, made: onnx.ModelProto | bytes | None, flags: list[str], words: str
) -> None:
    """What cannot be added is one sentence with exit code 2, and nothing is changed."""
    path = tmp_path / "some.onnx"
    if made is not None:
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())

    ended = fluxdrop("model", "add", path, *flags, "--root", root.path)

    assert 2 == ended.returncode
    assert words in ended.stderr
    assert 1 == len(ended.stderr.strip().splitlines())
    assert [] == list(root.models.iterdir())


def test_list(root: Root) -> None:
    """list tells the embedded and the added models, and which one is in use."""
    add(root, EMBEDDED, "--name", "mine", engine="onnxruntime")
    fluxdrop("model", "use", "mine", "--root", root.path, engine="onnxruntime")

    rows = json.loads(fluxdrop("model", "list", "--root", root.path, "--json").stdout)

    assert {"mine": True, "round-or-angular": False} == {row["name"]: row["in_use"] for row in rows}


@needs_julia
def test_check() -> None:
    """check compares every node of the embedded model, and finds no one beyond the tolerance."""
    ended = fluxdrop("model", "check", "round-or-angular", "--json")
    answer = json.loads(ended.stdout)

    assert (0, None) == (ended.returncode, answer["diverges"])
    assert {"Conv", "MaxPool", "Gemm", "Softmax"} <= {item["operator"] for item in answer["nodes"]}
    assert all(item["relative"] < 1e-4 for item in answer["nodes"])


@pytest.mark.parametrize("engine", [pytest.param("julia", marks=needs_julia), "onnxruntime"])
def test_use_under_a_stream(root: Root, samples: Path, engine: str) -> None:
    """A daemon changes models under a stream of pictures: none fails, each names its model."""
    names = ("model-a", "model-b")
    for name in names:
        add(root, EMBEDDED, "--name", name, "--labels", f"{name}0,{name}1", engine="onnxruntime")
    originals = sorted(samples.glob("*.png"))
    stop = threading.Event()
    dropped: list[str] = []

    def stream() -> None:
        while not stop.wait(0.02):
            # On a busy machine the daemon is not to be left behind for ever.
            if len(dropped) - len(ends(root)) > 50:
                continue
            name = f"{len(dropped):04}.png"
            shutil.copyfile(originals[len(dropped) % 12], root.inbox / name)
            dropped.append(name)

    with serving(root, engine=engine) as daemon:
        dropping = threading.Thread(target=stream)
        dropping.start()
        try:
            daemon.wait_for_ends(5)
            ended = [fluxdrop("model", "use", name, "--root", root.path) for name in names]
            wrong = fluxdrop("model", "use", "nothing", "--root", root.path)
            count = len(dropped)
            daemon.wait_until(lambda: len(dropped) > count + 5, "more pictures")
        finally:
            stop.set()
            dropping.join()
        daemon.wait_for_ends(len(dropped))
        daemon.stop()
    found = results(root)
    models = [found[name.replace(".png", ".json")]["model"]["bundle"] for name in dropped]

    assert [0, 0] == [command.returncode for command in ended]
    assert (2, True) == (wrong.returncode, "There is no model bundle nothing" in wrong.stderr)
    assert {} == failures(root)
    assert {"round-or-angular", *names} == set(models)
    assert models[-1] == "model-b"
    assert all(
        record["model"]["bundle"] == "round-or-angular"
        or all(label.startswith(record["model"]["bundle"]) for label in record["probabilities"])
        for record in found.values()
    )


def test_use_lasts(root: Root, samples: Path) -> None:
    """The model that use chose is used by the next start too; a model that is not there is refused."""
    add(root, EMBEDDED, "--name", "mine", "--labels", "a,b", engine="onnxruntime")
    used = fluxdrop("model", "use", "mine", "--root", root.path, engine="onnxruntime")
    wrong = fluxdrop("model", "use", "nothing", "--root", root.path, engine="onnxruntime")
    shutil.copyfile(samples / "angular_star_01.png", root.inbox / "star.png")
    ended = fluxdrop("run", "--once", "--root", root.path, engine="onnxruntime")

    assert (0, 2, 0) == (used.returncode, wrong.returncode, ended.returncode)
    assert "mine" == results(root)["star.json"]["model"]["bundle"]
