"""Whole models as people have them: out of transformers, PyTorch and scikit-learn, against onnxruntime."""

from __future__ import annotations

import warnings
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fluxdrop import config
from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.choose_engine import open_engine
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.library import add_model
from fluxdrop.predict.node_check import Run
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.telemetry import import_onnxruntime
from support import architectures

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
Pictures = NDArray[np.float32]

exported = cache(architectures.exported)


def needs(*packages: str) -> None:
    """Skip the test where one of the *packages* is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in packages:
            pytest.importorskip(package)


def bundle_of(folder: Path, model: bytes, labels: int, table: str, output: str) -> Bundle:
    (folder / "model.onnx").write_bytes(model)
    names = [str(label) for label in range(labels)]
    (folder / "model.toml").write_text(f'labels = {names}\noutput = "{output}"\n[input]\n{table}\n')
    return load_bundle(str(folder))


def some_pictures(count: int, size: int) -> Pictures:
    """Noise of another colour and contrast in each picture."""
    random = np.random.default_rng(20)
    noise, colour, contrast = (
        random.standard_normal((count, 3, *sides)) for sides in ((size, size), (1, 1), (1, 1))
    )
    return (noise * contrast + colour).astype(np.float32)


def off(expected: Pictures, found: Pictures) -> float:
    """The largest difference, relative to the largest number."""
    assert expected.shape == found.shape
    return float(np.abs(expected - found).max() / np.abs(expected).max())


@pytest.mark.parametrize("form", ["traced", "optimised"])
@pytest.mark.parametrize("name", architectures.CONFIGURATIONS)
def test_architecture(run: Run, tmp_path: Path, name: str, form: str) -> None:
    """The worker's answers to one picture and to three are those of onnxruntime running the file itself."""
    needs("torch", "transformers", "onnxscript")
    model = exported(name)[form == "optimised"]
    size = architectures.CONFIGURATIONS[name].get("image_size", 64)
    assert_same_answers(run, tmp_path, model, size)


def assert_same_answers(run: Run, folder: Path, model: bytes, size: int) -> None:
    """Compare the worker with onnxruntime, and see that the answers depend on the picture."""
    session = import_onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
    bundle = bundle_of(
        folder, model, architectures.LABELS, f"size = [{size}, {size}]", output="logits"
    )
    graph = compile_bundle(bundle)

    for pictures in (some_pictures(1, size), some_pictures(3, size)):
        (expected,) = session.run(None, {session.get_inputs()[0].name: pictures})
        found = run(graph, pictures)

        assert off(expected, found) < TOLERANCE
    # Answers that do not depend on the picture would agree with anything.
    assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "opset"), architectures.NEWER_OPSETS)
def test_newer_opset(run: Run, tmp_path: Path, name: str, opset: int) -> None:
    """A transformer that torch exports with ONNX's Attention gives onnxruntime's answers."""
    needs("torch", "transformers", "onnxscript")
    options = architectures.NEWER_OPSETS[name, opset]
    traced, model = architectures.exported(name, options, opset_version=opset)

    assert b"Attention" in model
    for form in (traced, model):
        assert_same_answers(run, tmp_path, form, 32)


def scikit_model(name: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    if name == "neural":
        return MLPClassifier((32,), solver="lbfgs", max_iter=500, random_state=20)
    return make_pipeline(StandardScaler(), Normalizer(), LogisticRegression())


@pytest.mark.parametrize("options", [{}, {"zipmap": False}])
@pytest.mark.parametrize("name", ["linear", "neural"])
def test_scikit_learn(run: Run, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """A classifier of scikit-learn's digits runs as skl2onnx writes it, by either engine, with its probabilities."""
    needs("sklearn", "skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits

    pictures, digits = load_digits(return_X_y=True)
    pictures = pictures.astype(np.float32)
    trained = scikit_model(name).fit(pictures, digits)
    model = to_onnx(trained, pictures[:1], options={id(trained): options}).SerializeToString()
    bundle = bundle_of(tmp_path, model, 10, 'size = [8, 8]\nmode = "L"', output="probabilities")
    graph, reference = compile_bundle(bundle), OnnxruntimeEngine(bundle)

    for count in (1, 3):
        given = pictures[:count].reshape(count, 1, 8, 8)

        assert off(trained.predict_proba(pictures[:count]), run(graph, given)) < TOLERANCE
        assert off(reference.predict(given), run(graph, given)) < TOLERANCE
    found = run(graph, pictures.reshape(-1, 1, 8, 8)).argmax(axis=1)
    assert np.array_equal(trained.predict(pictures), found)


def test_scikit_learn_regression(run: Run, tmp_path: Path) -> None:
    """A linear regression of two targets gives their values, by either engine."""
    needs("sklearn", "skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LinearRegression

    pictures, digits = load_digits(return_X_y=True)
    pictures = pictures.astype(np.float32)
    trained = LinearRegression().fit(pictures, np.stack([digits, -2.0 * digits], axis=1))
    model = to_onnx(trained, pictures[:1]).SerializeToString()
    bundle = bundle_of(tmp_path, model, 2, 'size = [8, 8]\nmode = "L"', output="regression")

    given = pictures[:3].reshape(3, 1, 8, 8)
    expected = trained.predict(pictures[:3])

    assert off(expected, run(compile_bundle(bundle), given)) < TOLERANCE
    assert off(expected, OnnxruntimeEngine(bundle).predict(given)) < TOLERANCE


def test_pytorch(tmp_path: Path) -> None:
    """What torch.onnx.export writes, its weights in a file beside it, is added as it is, and its logits become
    the probabilities that PyTorch computes."""
    needs("torch", "onnxscript")
    import torch
    from torch import nn

    torch.manual_seed(20)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32, 4),
    )
    path = tmp_path / "small.onnx"
    pictures = torch.randn(3, 3, 16, 24)
    architectures.export(network, pictures, path)
    assert path.with_name("small.onnx.data").exists()
    root = Root(tmp_path / "root")
    root.create()

    added = add_model(
        root, path, config.Settings(), name=None, labels=list("abcd"), options={"output": "logits"}
    )
    with closing(open_engine(config.Settings(), added.bundle)) as engine:
        answers = engine.predict(pictures.numpy())

    expected = network(pictures).softmax(dim=1).detach().numpy()
    assert ("small", (24, 16)) == (added.bundle.name, added.bundle.spec.input.size)
    for row, answer in zip(expected, answers, strict=True):
        found = label_probabilities(answer, added.bundle)
        assert list("abcd") == list(found)
        assert off(row, np.array(list(found.values()))) < TOLERANCE
