"""The stage that turns pictures into tensors, with real jobs in a real root and no engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fluxdrop.config import FolderTable, Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files import durable
from fluxdrop.jobs.fault import Fault, FaultKind
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import fit, normalise, to_tensor
from fluxdrop.service.items import Model, PictureItem, SwapModel, TensorItem
from fluxdrop.service.stages import preprocessing
from support.fakes import full, in_danger, model, read
from support.jobs import BUNDLE, GENERATED, job_in
from support.preprocessing import Bench, png
from support.stages import Once

SPEC = BUNDLE.spec.input
ODD = 77
"""The width of the picture over which something goes wrong."""


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """The first argument of each call of *name* in the stage's module."""
    calls: list[object] = []
    real = getattr(preprocessing, name)

    def call(first: object, *arguments: object, **options: object) -> object:
        calls.append(first)
        return real(first, *arguments, **options)

    monkeypatch.setattr(preprocessing, name, call)
    return calls


def test_batch(bench: Bench) -> None:
    """A batch is handed on together and in its order, each picture with its own tensor, which also lies in
    its job's folder; each has had one attempt, and none is in danger any more."""
    pictures = {f"{colour}.png": png(colour=colour) for colour in (250, 10, 100)}
    made = [bench.job(name, data) for name, data in pictures.items()]

    bench.run(*map(PictureItem, made))

    (call,) = bench.ends.handed
    prepared = [item for item in call if isinstance(item, TensorItem)]
    expected = [to_tensor(Image.open(BytesIO(data)), SPEC) for data in pictures.values()]
    assert made == [item.job for item in prepared]
    assert all(item.model is bench.first for item in prepared)
    np.testing.assert_array_equal(expected, [item.tensor for item in prepared])
    np.testing.assert_array_equal(expected, [read(job.tensor) for job in made])
    assert [1, 1, 1] == [job.attempts for job in made] == bench.attempts(*made)
    assert [] == in_danger(bench.root, "preprocess")


@pytest.mark.parametrize("error", [MemoryError(), ValueError("tile cannot extend")])
def test_defect_over_one(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A picture over which memory or a library gives out fails alone, as internal; the others of its batch are
    done, and the danger file is blank."""

    def failing(image: Image.Image, spec: InputSpec) -> Image.Image:
        if image.width == ODD:
            raise error
        return fit(image, spec)

    monkeypatch.setattr(preprocessing, "fit", failing)
    made = [bench.job("a.png", png()), bench.job("b.png", png(ODD)), bench.job("c.png", png())]

    bench.run(*map(PictureItem, made))

    assert [("a.png", "c.png")] == bench.handed
    assert [("b.png", "preprocess", "internal")] == bench.ends.reasons
    assert [] == in_danger(bench.root, "preprocess")
    assert [1] == list(bench.context.defects.counts().values())


def test_defect_over_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is too much at once is done picture by picture."""

    def poor(images: Sequence[Image.Image], spec: InputSpec) -> NDArray[np.float32]:
        if len(images) > 1:
            raise MemoryError
        return normalise(images, spec)

    monkeypatch.setattr(preprocessing, "normalise", poor)
    made = [bench.job(f"{name}.png", png()) for name in "abc"]

    bench.run(*map(PictureItem, made))

    assert [("a.png",), ("b.png",), ("c.png",)] == bench.handed
    assert [] == bench.ends.failed
    assert [1, 1, 1] == bench.attempts(*made)


def test_what_failed_is_not_taken_for_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decoded of a picture that failed is never another's: each job's picture is its own."""
    fail = Once(*[MemoryError() for _ in range(20)])

    def failing(images: Sequence[Image.Image], spec: InputSpec) -> NDArray[np.float32]:
        if images[0].getpixel((0, 0)) == 255:
            fail()
        return normalise(images, spec)

    monkeypatch.setattr(preprocessing, "normalise", failing)
    # pytest keeps what is logged, and with a traceback all that it leads to.
    monkeypatch.setattr(logging.getLogger("fluxdrop.daemon"), "disabled", True)
    expected = [f"{number}.png" for number in range(1, 40, 2)]
    pictures = [png(colour=0 if number % 2 else 255) for number in range(40)]

    bench.run_alone(*[bench.job(f"{number}.png", data) for number, data in enumerate(pictures)])

    assert [(name,) for name in expected] == bench.handed
    assert 20 == len(bench.ends.failed)


def test_what_failed_may_come_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose failure could not be published comes again, and is then decoded anew."""
    fail = Once(MemoryError())

    def failing(images: Sequence[Image.Image], spec: InputSpec) -> NDArray[np.float32]:
        fail()
        return normalise(images, spec)

    monkeypatch.setattr(preprocessing, "normalise", failing)
    job = bench.job("a.png", png())
    again = job_in(job.folder)

    bench.run_alone(job, again)

    ((item,),) = bench.ends.handed
    assert isinstance(item, TensorItem)
    assert item.job is again


@pytest.mark.parametrize("refused", [1, 2, 3, 4])
def test_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """A full disk costs a picture no attempt: it is decoded once, written when there is room, handed on once."""
    decoded = counted(monkeypatch, "open_picture")
    real = durable.put
    calls = iter(range(1000))

    def put(*arguments: Any) -> None:
        if next(calls) in (refused - 1, refused):
            raise full()
        real(*arguments)

    monkeypatch.setattr(durable, "put", put)
    made = [bench.job("a.png", png()), bench.job("b.png", png())]

    bench.run(*map(PictureItem, made))

    assert [job.input for job in made] == decoded
    assert [("a.png", "b.png")] == bench.handed
    assert [] == bench.ends.failed
    assert [1, 1] == bench.attempts(*made)
    assert all(SPEC.shape == read(job.tensor).shape for job in made)


def test_full_disk_for_the_index(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that the index could not count is counted when there is room, and once."""
    fail, real = Once(full(), full()), bench.store.begin_attempt

    def begin(job_ids: Sequence[str]) -> dict[str, int]:
        fail()
        return real(job_ids)

    monkeypatch.setattr(bench.store, "begin_attempt", begin)
    job = bench.job("a.png", png())

    bench.run(PictureItem(job))

    assert ([("a.png",)], [1]) == (bench.handed, bench.attempts(job))


def test_cancelled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that was cancelled while it waited is not decoded and fails as cancelled; the others are done."""
    decoded = counted(monkeypatch, "open_picture")
    made = [bench.job("a.png", png()), bench.job("b.png", png())]
    bench.waiting.cancel(made[0].id)

    bench.run(*map(PictureItem, made))

    assert [made[1].input] == decoded
    assert [("b.png",)] == bench.handed
    assert [("a.png", "preprocess", "cancelled")] == bench.ends.reasons


def test_fault(bench: Bench) -> None:
    """What the intake found wrong fails at the intake for that reason, without an attempt."""
    made = [bench.job("a.png", b"half"), bench.job("b.doc", b"text"), bench.job("c.png", b"?")]
    kinds: list[FaultKind] = ["incomplete", "unknown", "unreadable"]
    for job, kind in zip(made, kinds, strict=True):
        job.fault = Fault(kind, "so it is")

    bench.run(*map(PictureItem, made))

    assert kinds == [kind for _, stage, kind in bench.ends.reasons if stage == "intake"]
    assert [0, 0, 0] == bench.attempts(*made)


def test_in_danger_while_decoded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a picture is decoded the danger file names it, and nothing else of its batch."""
    seen: list[list[str]] = []

    def looking(image: Image.Image, spec: InputSpec) -> Image.Image:
        seen.append(in_danger(bench.root, "preprocess"))
        return fit(image, spec)

    monkeypatch.setattr(preprocessing, "fit", looking)
    made = [bench.job("a.png", png()), bench.job("b.png", png())]
    bench.run(*map(PictureItem, made))

    assert [[job.id] for job in made] == seen


def test_generated_picture(bench: Bench) -> None:
    """A picture that was generated is the job's image, and its attempt was counted already."""
    job = bench.job("a.txt", b"a circle")
    job.attempts = 1
    job.image.write_bytes(png(colour=9))

    bench.run(PictureItem(job, GENERATED))

    (item,) = bench.ends.handed[0]
    assert isinstance(item, TensorItem)
    assert (job.image, GENERATED) == (item.picture.file, item.picture.generated)
    assert [0] == bench.attempts(job)


def test_swap_keeps_its_order(bench: Bench) -> None:
    """Pictures before a change of the model are made for the one before, those behind it for the next."""
    made = [bench.job(f"{name}.png", png()) for name in "ab"]
    swap = SwapModel(model())

    bench.run(PictureItem(made[0]), swap, PictureItem(made[1]))

    (call,) = bench.ends.handed
    models = [item.model for item in call if isinstance(item, TensorItem)]
    assert [("a.png", swap, "b.png")] == bench.handed
    assert models[0] is bench.first
    assert models[1] is swap.model is bench.choice.model


def test_models_that_are_named(bench: Bench) -> None:
    """A picture is prepared for the model that its job names, else for those of its folder, else for the one in use,
    which a name may mean, too; each is opened once."""
    opened: dict[str, Model] = {}

    def other(name: str) -> Model:
        assert name not in opened
        made = model()
        return opened.setdefault(name, replace(made, bundle=replace(made.bundle, name=name)))

    bench.other = other
    tables = {"a": FolderTable(model="x"), "b": FolderTable(models=["y", BUNDLE.name, "x"])}
    bench.settings = Settings(batch_size=8, folders=tables)
    wanted = [(None, None), ("x", None), ("y", "a"), (BUNDLE.name, "a"), (None, "a"), (None, "b")]
    made = []
    for number, (name, folder) in enumerate(wanted):
        made.append(bench.job(f"{number}.png", png(), model=name))
        made[-1].inbox_folder = folder
    bench.run(*map(PictureItem, made))

    items = [item for call in bench.ends.handed for item in call if isinstance(item, TensorItem)]
    used = sorted((item.job.name[0], item.number, item.model.bundle.name) for item in items)
    mine = BUNDLE.name
    assert [("0", 0, mine), ("1", 0, "x"), ("2", 0, "y"), ("3", 0, mine), ("4", 0, "x")] == used[:5]
    assert [("5", 0, "y"), ("5", 1, mine), ("5", 2, "x")] == used[5:]
    assert all((item.answers is None) == (item.job.name[0] != "5") for item in items)


def test_model_that_is_not_there(bench: Bench) -> None:
    """A job that names no model of the root fails alone."""

    def other(name: str) -> Model:
        raise FluxdropError(f"There is no model bundle {name}", kind="model")

    bench.other = other
    made = [bench.job("a.png", png(), model="no"), bench.job("b.png", png())]
    bench.run(*map(PictureItem, made))

    assert ([("b.png",)], [("a.png", "preprocess", "model")]) == (bench.handed, bench.ends.reasons)


@pytest.mark.parametrize("tensor", [b"", b"rubbish", b"float64", b"shape"])
def test_recorded_tensor_that_does_not_fit(bench: Bench, tensor: bytes) -> None:
    """A replay whose tensor is damaged, or not the model's, fails alone."""
    made = [bench.job("a.png", png(), has_tensor=True), bench.job("b.png", png())]
    if tensor == b"float64":
        np.save(made[0].tensor, np.zeros(SPEC.shape))
    elif tensor == b"shape":
        np.save(made[0].tensor, np.zeros((1, 2), np.float32))
    else:
        made[0].tensor.write_bytes(tensor)

    bench.run(*map(PictureItem, made))

    assert ([("b.png",)], [("a.png", "preprocess", "tensor")]) == (bench.handed, bench.ends.reasons)
