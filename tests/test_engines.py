"""The engines, against each other and when things go wrong."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from conftest import SAMPLES
from misbehaving import JULIA, julia_that
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fluxdrop import config
from fluxdrop.child import ChildDied
from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import Bundle, load_bundle
from fluxdrop.predict.choose import open_engine
from fluxdrop.predict.classify import label_probabilities
from fluxdrop.predict.compiler.compile import compile_bundle
from fluxdrop.predict.engine import Engine, EngineDown
from fluxdrop.predict.julia_engine import JuliaEngine
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.preprocess.tensor import to_tensor
from fluxdrop.provision import find_julia

BUNDLE = load_bundle("round-or-angular")
needs_julia = pytest.mark.skipif(JULIA is None, reason="no Julia: fluxdrop setup provides one")
ENGINES = [pytest.param("julia", marks=needs_julia), "onnxruntime"]


def opened(engine: str, bundle: Bundle = BUNDLE, **options: Any) -> closing[Engine]:
    """An engine that is closed at the end of a with statement."""
    flags = {"engine": engine, "worker_call_seconds": 30.0, **options}
    return closing(open_engine(config.load(None, flags), bundle))


@pytest.fixture(scope="module")
def engines() -> Iterator[Callable[[str], Engine]]:
    """One engine of each kind for all tests that do it no harm."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(opened(name)))


def sample_tensors() -> dict[str, NDArray[np.float32]]:
    """The tensors of the 12 sample pictures, by their files' names."""
    tensors = {}
    for path in sorted(SAMPLES.glob("*.png")):
        image, _ = open_picture(path, max_file_bytes=10**7, max_pixels=10**7)
        tensors[path.name] = to_tensor(image, BUNDLE.spec.input)
    assert len(tensors) == 12
    return tensors


TENSORS = sample_tensors()
BATCH = np.concatenate(list(TENSORS.values()))


@needs_julia
def test_julia_agrees_with_onnxruntime(engines: Callable[[str], Engine]) -> None:
    """The 12 sample pictures have the same probabilities by Julia as by the reference."""
    by_julia, by_reference = (engines(name).predict(BATCH) for name in ("julia", "onnxruntime"))

    assert np.abs(by_julia - by_reference).max() < 1e-4


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("picture", TENSORS)
def test_samples_are_told_apart(engines: Callable[[str], Engine], name: str, picture: str) -> None:
    """Each sample is what its name says, by more than nine to one."""
    (raw,) = engines(name).predict(TENSORS[picture])

    assert label_probabilities(raw, BUNDLE)[picture.partition("_")[0]] > 0.9


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("size", [1, 3, 12])
def test_batches_agree(engines: Callable[[str], Engine], name: str, size: int) -> None:
    """A picture's probabilities do not depend on the pictures beside it."""
    engine = engines(name)
    whole = engine.predict(BATCH)

    parts = [engine.predict(BATCH[start : start + size]) for start in range(0, 12, size)]

    assert (12, 2) == whole.shape
    assert np.abs(whole - np.concatenate(parts)).max() < 1e-5


@pytest.mark.parametrize("name", ENGINES)
def test_info(engines: Callable[[str], Engine], name: str) -> None:
    """An engine tells what it is: versions, layers, and the process where there is one."""
    info = engines(name).info

    assert (name, "cpu") == (info.engine, info.device)
    if name == "julia":
        assert JULIA is not None
        assert (JULIA.version, True) == (info.version, psutil.pid_exists(info.pid or 0))
        assert (info.backend == "flux") == (info.flux is not None)
    else:
        assert ("onnxruntime", None) == (info.backend, info.pid)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, 32, 32), (1, 64)])
def test_tensor_of_another_shape(
    engines: Callable[[str], Engine], name: str, shape: tuple[int, ...]
) -> None:
    """A tensor that does not fit is refused, and the engine goes on, in the same process."""
    engine = engines(name)
    before = engine.info.pid

    with pytest.raises(FluxdropError) as caught:
        engine.predict(np.zeros(shape, np.float32))
    engine.predict(BATCH)

    assert not isinstance(caught.value, ChildDied)
    assert before == engine.info.pid


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path; while there is something at it, the worker of `mortal` cannot be started."""
    return tmp_path_factory.mktemp("switch") / "off"


@pytest.fixture(scope="module")
def mortal(switch: Path) -> Iterator[Engine]:
    """An engine whose worker each test may kill, as long as it leaves another."""
    with pytest.MonkeyPatch.context() as patch:
        julia = julia_that(switch.parent, f"[ -e {switch} ] && exit 3")
        patch.setenv("FLUXDROP_JULIA", str(julia))
        with opened("julia", worker_call_seconds=5.0) as engine:
            yield engine


def worker(engine: Engine) -> int:
    """The process id of *engine*'s worker."""
    assert engine.info.pid is not None
    return engine.info.pid


def kill(engine: Engine) -> int:
    """Kill the worker of *engine*, and wait until it is dead; its process id."""
    pid = worker(engine)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@needs_julia
def test_worker_killed_between_calls(mortal: Engine) -> None:
    """A worker that died between two calls is replaced by the next one, which succeeds; nothing is
    left of the dead one, neither process nor descriptors."""
    before = descriptors()
    expected = mortal.predict(BATCH)
    killed = kill(mortal)

    found = mortal.predict(BATCH)

    assert np.array_equal(expected, found)
    assert (False, before) == (psutil.pid_exists(killed), descriptors())


@needs_julia
def test_worker_killed_in_a_call(mortal: Engine) -> None:
    """A worker that dies over a batch is ChildDied, and the next call has another worker."""
    first = worker(mortal)
    os.kill(first, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (first, signal.SIGKILL))
    killer.start()

    with pytest.raises(ChildDied, match="was ended by SIGKILL"):
        mortal.predict(BATCH)
    killer.join()
    again = mortal.predict(BATCH)

    assert ((12, 2), True) == (again.shape, first != worker(mortal))


@needs_julia
def test_worker_that_hangs(mortal: Engine) -> None:
    """A worker that does not answer in time is killed, reaped, and replaced."""
    first = worker(mortal)
    os.kill(first, signal.SIGSTOP)

    with pytest.raises(ChildDied, match="did not answer within 5 s"):
        mortal.predict(BATCH[:1])

    assert not psutil.pid_exists(first)
    assert (1, 2) == mortal.predict(BATCH[:1]).shape


@needs_julia
def test_worker_that_cannot_be_replaced(mortal: Engine, switch: Path) -> None:
    """Where no worker starts any more the engine is down, which is no fault of the picture; it is
    up again as soon as one does."""
    kill(mortal)
    switch.touch()

    with pytest.raises(EngineDown, match="exited with code 3"):
        mortal.predict(BATCH)
    switch.unlink()

    assert (12, 2) == mortal.predict(BATCH).shape


@needs_julia
def test_noise_on_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker's libraries print, however much and of whatever bytes, disturbs nothing; a
    worker that is closed is gone."""
    noise = "head -c 3000000 /dev/urandom & head -c 3000000 /dev/zero >&2"
    monkeypatch.setenv("FLUXDROP_JULIA", str(julia_that(tmp_path, noise)))
    before = descriptors()

    with opened("julia") as engine:
        found = engine.predict(BATCH)
        pid = worker(engine)

    assert (12, 2) == found.shape
    assert (False, before) == (psutil.pid_exists(pid), descriptors())


@pytest.fixture
def no_julia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Julia."""
    for name in ("FLUXDROP_JULIA", "FLUXDROP_JULIA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLUXDROP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "")


@pytest.mark.usefixtures("no_julia")
def test_auto_without_julia() -> None:
    """Without Julia, auto takes onnxruntime and says why."""
    with opened("auto") as engine:
        info = engine.info

    assert "onnxruntime" == info.engine
    assert info.note == "Julia is not used: There is no Julia on this machine"


@pytest.mark.usefixtures("no_julia")
def test_julia_without_julia() -> None:
    """Without Julia, the engine julia is an error that says what to do."""
    with pytest.raises(FluxdropError, match="There is no Julia") as caught:
        opened("julia")

    assert ("julia", True) == (caught.value.kind, "fluxdrop setup" in caught.value.hint)


@pytest.mark.usefixtures("no_julia")
@pytest.mark.parametrize(
    ("does", "words"),
    [("echo no libraries >&2; exit 3", "no libraries"), ("sleep 60", "did not answer within 1 s")],
)
def test_julia_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, words: str
) -> None:
    """A Julia that does not come up is passed over by auto, and told with its last words."""
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setenv("FLUXDROP_JULIA", str(julia_that(tmp_path, f"exec sh -c '{does}'")))

    with opened("auto", worker_start_seconds=1.0) as engine:
        note = engine.info.note
    with pytest.raises(FluxdropError) as caught:
        opened("julia", worker_start_seconds=1.0)

    assert "onnxruntime" == engine.info.engine
    assert note is not None
    assert (True, True) == (words in note, words in caught.value.message)


def bundle_of(
    folder: Path,
    *nodes: onnx.NodeProto,
    shape: Sequence[int | str] = ("N", 1, 4, 4),
    outputs: Sequence[str] = ("y",),
    constants: dict[str, NDArray[Any]] | None = None,
) -> Bundle:
    """A bundle whose model is made of *nodes*, from x to *outputs*, and has one label."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "model.toml").write_text('labels = ["a"]\n[input]\nsize = [4, 4]\nmode = "L"\n')
    return load_bundle(str(folder))


@needs_julia
def test_model_that_julia_refuses(tmp_path: Path) -> None:
    """A model that only onnxruntime can run: auto runs it and says why, julia is an error."""
    bundle = bundle_of(tmp_path, helper.make_node("Det", ["x"], ["y"], name="d"))

    with opened("auto", bundle) as engine:
        info = engine.info
    with pytest.raises(FluxdropError) as caught:
        opened("julia", bundle)

    assert "onnxruntime" == info.engine
    assert "node d (Det)" in str(info.note)
    assert "node d (Det)" in caught.value.message


@needs_julia
def test_model_that_the_worker_refuses(tmp_path: Path) -> None:
    """A graph that the worker cannot build is an error that names the file and the node."""
    bundle = bundle_of(tmp_path, helper.make_node("Flatten", ["x"], ["y"], name="flat"))
    graph = compile_bundle(bundle).replace(b"node Flatten", b"node Flattem")
    install = find_julia()
    assert install is not None

    with pytest.raises(FluxdropError) as caught:
        JuliaEngine(config.Settings(), install, bundle, graph)

    assert [True, True] == [word in caught.value.message for word in (str(bundle.onnx), "flat")]


def flat(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Flatten", ["x"], ["y"], **attributes)


@pytest.mark.parametrize(
    ("nodes", "options"),
    [
        ([flat()], {"shape": ["N", 3, 4, 4]}),
        ([flat(axis=0)], {"shape": [2, 1, 4, 4]}),
        ([flat(), helper.make_node("Flatten", ["x"], ["z"])], {"outputs": ["y", "z"]}),
    ],
)
def test_model_that_does_not_fit(
    tmp_path: Path, nodes: list[onnx.NodeProto], options: dict[str, Any]
) -> None:
    """A model that does not fit its model.toml is refused when it is loaded, by its file's name."""
    bundle = bundle_of(tmp_path, *nodes, **options)

    with pytest.raises(FluxdropError) as caught:
        opened("onnxruntime", bundle)

    assert ("model", True) == (caught.value.kind, str(bundle.onnx) in caught.value.message)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ENGINES)
def test_fixed_batch(tmp_path: Path, name: str, size: int) -> None:
    """A model that was exported for batches of one size takes any number of pictures all the same."""
    shape = np.array([size, 16], np.int64)
    made = helper.make_node("Reshape", ["x", "shape"], ["y"])
    bundle = bundle_of(tmp_path, made, shape=[size, 1, 4, 4], constants={"shape": shape})
    pictures = np.arange(5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)

    with opened(name, bundle) as engine:
        found = [engine.predict(pictures[:count]) for count in (1, 2, 5)]

    for count, result in zip((1, 2, 5), found, strict=True):
        np.testing.assert_array_equal(pictures[:count].reshape(count, 16), result)


@pytest.mark.parametrize("shape", [("N", 16), ("N", 4, 4), (2, 16), (None, None)])
@pytest.mark.parametrize("name", ENGINES)
def test_flat_input(tmp_path: Path, name: str, shape: Sequence[int | str]) -> None:
    """A model that takes a picture's numbers in a row, or one channel as a matrix, is given them so."""
    bundle = bundle_of(tmp_path, flat(), shape=shape)
    pictures = np.arange(3 * 16, dtype=np.float32).reshape(3, 1, 4, 4)

    with opened(name, bundle) as engine:
        found = engine.predict(pictures)

    np.testing.assert_array_equal(pictures.reshape(3, 16), found)


@pytest.mark.parametrize("location", ["../secret.bin", "{}/secret.bin", "link.bin"])
@pytest.mark.parametrize("name", ENGINES)
def test_data_outside_of_the_bundle(tmp_path: Path, name: str, location: str) -> None:
    """No engine reads a tensor from a file outside of the bundle, by whatever way it leads there."""
    (tmp_path / "secret.bin").write_bytes(np.ones(16, np.float32).tobytes())
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Add", ["f", "w"], ["y"]),
    ]
    folder = tmp_path / "bundle"
    bundle_of(folder, *nodes, constants={"w": np.ones(16, np.float32)})
    (folder / "link.bin").symlink_to("../secret.bin")
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location.format(tmp_path))
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(FluxdropError, match=r"model\.onnx cannot be ") as caught:
        opened(name, load_bundle(str(folder)))

    assert "model" == caught.value.kind
