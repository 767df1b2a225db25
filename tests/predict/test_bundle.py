"""Model bundles."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.library import spec_text
from fluxdrop.preprocess.spec import InputSpec

SIZE = "[input]\nsize = [8, 6]\n"
THREE = 'labels = ["a", "b", "c"]\n[input]\nsize = [8, 6]\n'
GOOD = 'labels = ["a", "b"]\n[input]\nsize = [8, 6]\n'


def bundle(folder: Path, toml: str | bytes = GOOD) -> Path:
    """A bundle whose model is not looked at."""
    (folder / "model.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    (folder / "model.onnx").write_bytes(b"model")
    return folder


def refusal(model: str | Path) -> FluxdropError:
    with pytest.raises(FluxdropError) as caught:
        load_bundle(str(model))
    assert "model" == caught.value.kind
    return caught.value


def test_embedded() -> None:
    """The embedded bundle is known by its name."""
    found = load_bundle("round-or-angular")

    assert ("round-or-angular", ["angular", "round"], (1, 1, 64, 64)) == (
        found.name,
        found.spec.labels,
        found.spec.input.shape,
    )
    assert hashlib.sha256(found.onnx.read_bytes()).hexdigest() == found.sha256


def test_folder(tmp_path: Path) -> None:
    """Any folder is a bundle by its path, and model.toml needs no more than labels and a size."""
    found = load_bundle(str(bundle(tmp_path)))

    assert (tmp_path.name, tmp_path, InputSpec(size=(8, 6))) == (
        found.name,
        found.folder,
        found.spec.input,
    )
    assert hashlib.sha256(b"model").hexdigest() == found.sha256


@pytest.mark.parametrize(
    "toml", [GOOD, GOOD + "resize_to = 256\n", GOOD + 'resize_to = [9, 7]\nresampler = "torch"\n']
)
def test_written_again(tmp_path: Path, toml: str) -> None:
    """A model.toml that is written from a bundle says the same, whichever keys were left out."""
    spec = load_bundle(str(bundle(tmp_path, toml))).spec
    top = msgspec.to_builtins(spec)

    text = spec_text(top, top.pop("input"))

    assert spec == load_bundle(str(bundle(tmp_path, text))).spec


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle's path may be relative to the working folder and is kept absolute."""
    bundle(tmp_path)
    monkeypatch.chdir(tmp_path.parent)

    assert tmp_path == load_bundle(tmp_path.name).folder


@pytest.mark.parametrize(
    ("layout", "mode", "shape"),
    [
        ("NCHW", "RGB", (1, 3, 6, 8)),
        ("NHWC", "RGB", (1, 6, 8, 3)),
        ("NCHW", "L", (1, 1, 6, 8)),
        ("NHWC", "BGR", (1, 6, 8, 3)),
    ],
)
def test_shape(tmp_path: Path, layout: str, mode: str, shape: tuple[int, ...]) -> None:
    """The size is width and height; the tensor's shape has them in the order of its layout."""
    toml = GOOD + f'layout = "{layout}"\nmode = "{mode}"\n'

    assert shape == load_bundle(str(bundle(tmp_path, toml))).spec.input.shape


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("labels = [", "Invalid"),
        (b"labels = ['\xe9']", "utf-8"),
        ("[input]\nsize = [8, 8]\n", "labels are missing, which output softmax needs"),
        ('labels = ["a"]\n', "missing required field `input`"),
        ("labels = []\n[input]\nsize = [8, 8]\n", "length >= 1"),
        ('labels = "round"\n[input]\nsize = [8, 8]\n', "Expected `array`"),
        ('labels = ["a", "a"]\n[input]\nsize = [8, 8]\n', "two labels are the same"),
        ('output = "logit"\n' + GOOD, "Invalid enum value 'logit'"),
        ('output = "embedding"\n' + GOOD, "an embedding has no labels"),
        ('output = "sigmoid"\n' + THREE, "for one or two labels, not 3"),
        ('output = "logits"\n' + GOOD.replace(', "b"', ""), "is always 1"),
        ('activation = "sigmoid"\n' + GOOD, "activation is for output sigmoid or multi-label"),
        ("thresholds = [0.4]\n" + GOOD, "thresholds are for output multi-label"),
        ('output = "multi-label"\nthresholds = [0.4, 0.5]\n' + THREE, "2 values for 3 labels"),
        ('output = "multi-label"\nthresholds = [1.5]\n' + THREE, "thresholds"),
        ('unit = "years"\n' + GOOD, "unit and value_name are for output regression"),
        ('output = "regression"\nunit = ["m"]\n' + GOOD, "unit has 1 values for 2 values"),
        ("Labels = []\n" + GOOD, "unknown field `Labels`"),
        (GOOD + "colour = 1\n", "unknown field `colour`"),
        (GOOD.replace("[8, 6]", "[8]"), "input.size"),
        (GOOD.replace("[8, 6]", "[8, 0]"), "input.size"),
        (GOOD.replace("[8, 6]", "[8, 9000]"), "input.size"),
        (GOOD + 'mode = "CMYK"\n', "Invalid enum value 'CMYK'"),
        (GOOD + 'resize = "cut"\n', "Invalid enum value 'cut'"),
        (GOOD + 'filter = "cubic"\n', "Invalid enum value 'cubic'"),
        (GOOD + 'layout = "CHW"\n', "Invalid enum value 'CHW'"),
        (GOOD + "scale = 0\n", "input.scale"),
        (GOOD + "scale = inf\n", "Expected `float` "),
        (GOOD + "mean = [0.5, 0.5]\n", "input.mean has 2 values; mode RGB needs 1 or 3"),
        (GOOD + "mean = []\n", "input.mean has 0 values"),
        (GOOD + "mean = [nan]\n", "Expected `float` "),
        (GOOD + "std = [1, 1, 0]\n", "input.std"),
        (GOOD + 'mode = "L"\nstd = [1, 1, 1]\n', "input.std has 3 values; mode L needs 1."),
        (GOOD + 'background = "white"\n', "input.background"),
    ],
)
def test_wrong_toml(tmp_path: Path, toml: str | bytes, words: str) -> None:
    """Whatever is wrong in model.toml is told in one sentence that names the file."""
    error = refusal(bundle(tmp_path, toml))

    assert error.message.startswith(f"{tmp_path / 'model.toml'} is wrong: ")
    assert words in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("toml", "summary"),
    [
        (GOOD, "2 labels of a softmax output"),
        ('output = "sigmoid"\n' + GOOD, "a sigmoid output, the probability of b"),
        ('output = "regression"\nvalue_name = "age"\n' + SIZE, "a regression of age"),
        ('output = "embedding"\n' + SIZE, "an embedding"),
    ],
)
def test_summary(tmp_path: Path, toml: str, summary: str) -> None:
    """What a model answers with is told in a few words; of one probability, whose it is."""
    assert summary == load_bundle(str(bundle(tmp_path, toml))).spec.summary


def test_earlier_name(tmp_path: Path) -> None:
    """`probabilities`, as model.toml said earlier, is read as softmax."""
    found = load_bundle(str(bundle(tmp_path, 'output = "probabilities"\n' + GOOD)))

    assert "softmax" == found.spec.output


@pytest.mark.parametrize("missing", ["model.toml", "model.onnx"])
def test_missing_file(tmp_path: Path, missing: str) -> None:
    """A bundle without one of its files is refused with the file's name."""
    (bundle(tmp_path) / missing).unlink()

    assert f"{tmp_path / missing} cannot be read" in refusal(tmp_path).message


def test_no_bundle(tmp_path: Path) -> None:
    """Where there is no such bundle, the embedded ones are named; a pipeline is not one of them."""
    error = refusal(tmp_path / "nothing")

    assert str(tmp_path / "nothing") in error.message
    assert error.hint.endswith("or one of: round-or-angular.")
