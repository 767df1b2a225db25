"""The setting ``fast_jpeg`` in the stage preprocess, with real jobs in a real root and no engine."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from fluxdrop.config import FolderTable, Settings
from fluxdrop.files import durable
from fluxdrop.predict.answer import Answer
from fluxdrop.preprocess.tensor import npy, to_tensor
from fluxdrop.publish.outcome import build_record, done
from fluxdrop.records.result import Result, encode
from fluxdrop.service.items import Model, PictureItem, SwapModel, TensorItem
from support.fakes import model, read
from support.jobs import BUNDLE, ENGINE
from support.pictures import scene
from support.preprocessing import Bench, png
from support.stages import run_stage

SPEC = BUNDLE.spec.input
NOTE = "It was decoded at 1/8 of its size (fast_jpeg)."
SIDE = 1040
"""More than 16 times that of the model's input."""


def jpeg(side: int = SIDE) -> bytes:
    """A photo; that with the least sides is decoded on the stage's own thread."""
    file = BytesIO()
    scene(side, side).save(file, "JPEG", quality=90)
    return file.getvalue()


def configure(bench: Bench, **settings: Any) -> None:
    bench.settings = Settings(batch_size=8, **settings)


def larger(side: int) -> Model:
    """A model that takes a larger picture than the embedded one."""
    bundle = replace(
        BUNDLE,
        name=f"larger {side}",
        spec=msgspec.structs.replace(
            BUNDLE.spec, input=msgspec.structs.replace(SPEC, size=(side, side))
        ),
    )
    return Model(bundle, model().engine)


def tensors(bench: Bench) -> list[TensorItem]:
    """What was handed on to the models."""
    assert [] == bench.ends.reasons
    return [item for call in bench.ends.handed for item in call if isinstance(item, TensorItem)]


def of_all_pixels(data: bytes) -> Any:
    return to_tensor(Image.open(BytesIO(data)), SPEC)


def test_off(bench: Bench) -> None:
    """By default the tensor is that of all pixels, to the last bit, and the record says so."""
    job = bench.job("a.jpg", jpeg())

    bench.run(PictureItem(job))

    (item,) = tensors(bench)
    np.testing.assert_array_equal(of_all_pixels(jpeg()), item.tensor)
    assert (1, []) == (item.picture.jpeg_scale, job.warnings)


def test_on(bench: Bench) -> None:
    """With the setting, a JPEG is decoded at an eighth, which its tensor, the record and a warning tell; the size in
    the record is the picture's own."""
    configure(bench, fast_jpeg=True)
    job = bench.job("a.jpg", jpeg())

    bench.run(PictureItem(job))

    (item,) = tensors(bench)
    difference = np.abs(of_all_pixels(jpeg()) - item.tensor).max()
    assert 0 < difference <= 3 * 2 / 255
    np.testing.assert_array_equal(item.tensor, read(job.tensor))
    answer = Answer("classification", {"angular": 0.25, "round": 0.75})
    record = build_record(done(job, item.picture, BUNDLE, ENGINE, answer), "a")
    assert isinstance(record, Result)
    assert (8, SIDE, SIDE, [NOTE]) == (
        record.preprocessed.jpeg_scale,
        record.image.width,
        record.image.height,
        record.warnings,
    )
    assert 8 == json.loads(encode(record))["preprocessed"]["jpeg_scale"]


def test_large_files(bench: Bench) -> None:
    """A file that another thread decodes is decoded smaller, too, beside pictures that are not."""
    configure(bench, fast_jpeg=True)
    photo = jpeg(4000)
    assert len(photo) > 1 << 16
    made = [bench.job("a.jpg", photo), bench.job("b.png", png()), bench.job("c.jpg", jpeg(200))]

    bench.run(*map(PictureItem, made))

    assert {"a.jpg": 8, "b.png": 1, "c.jpg": 1} == {
        item.job.name: item.picture.jpeg_scale for item in tensors(bench)
    }


@pytest.mark.parametrize(
    ("general", "own", "expected"),
    [(False, True, 8), (True, False, 1), (True, None, 8), (False, None, 1)],
)
def test_folder(bench: Bench, general: bool, own: bool | None, expected: int) -> None:
    """A folder's table decides for what is dropped there, and the setting for all else."""
    configure(bench, fast_jpeg=general, folders={"x": FolderTable(fast_jpeg=own)})
    inside, outside = bench.job("x/a.jpg", jpeg()), bench.job("a.jpg", jpeg())
    inside.inbox_folder = "x"

    bench.run(PictureItem(inside), PictureItem(outside))

    assert [expected, 8 if general else 1] == [item.picture.jpeg_scale for item in tensors(bench)]


def test_several_models(bench: Bench) -> None:
    """What several models see is decoded once, as large as the one that needs most."""
    configure(
        bench,
        fast_jpeg=True,
        folders={"x": FolderTable(models=["larger", BUNDLE.name])},
    )
    bench.other = lambda _name: larger(200)
    job = bench.job("x/a.jpg", jpeg())
    job.inbox_folder = "x"

    bench.run(PictureItem(job))

    bench.warm.finish()
    shapes = {item.tensor.shape: item.picture.jpeg_scale for item in tensors(bench)}
    assert {(1, 1, 200, 200): 2, SPEC.shape: 2} == shapes


def test_swap(bench: Bench) -> None:
    """Each picture is decoded for the model that answers it: before a change of the model for the one before."""
    configure(bench, fast_jpeg=True)
    made = [bench.job(f"{name}.jpg", jpeg()) for name in "ab"]

    bench.run(PictureItem(made[0]), SwapModel(larger(200)), PictureItem(made[1]))

    assert [8, 2] == [item.picture.jpeg_scale for item in tensors(bench)]


def test_reload(bench: Bench) -> None:
    """Changed settings apply from the next picture on, without a new start."""
    handler = bench.handler()
    job = bench.job("a.jpg", jpeg())

    handler.apply(Settings(batch_size=8, fast_jpeg=True))
    stage = run_stage(handler, bench.root.work, PictureItem(job), context=bench.context)

    assert stage.failure is None
    assert [8] == [item.picture.jpeg_scale for item in tensors(bench)]


@pytest.mark.parametrize(("is_fast", "recorded"), [(True, 1), (False, 8), (True, 8), (False, 1)])
def test_recorded_tensor(bench: Bench, is_fast: bool, recorded: int) -> None:
    """Of a recorded tensor, the record says how it was made then, whatever the setting is now."""
    configure(bench, fast_jpeg=is_fast)
    job = bench.job("a.jpg", jpeg(), has_tensor=True, jpeg_scale=recorded)
    durable.put(job.tensor, npy(of_all_pixels(jpeg())))

    bench.run(PictureItem(job))

    (item,) = tensors(bench)
    np.testing.assert_array_equal(of_all_pixels(jpeg()), item.tensor)
    assert (recorded, [NOTE] * (recorded == 8)) == (item.picture.jpeg_scale, job.warnings)


def test_recorded_tensor_of_several_models(bench: Bench) -> None:
    """A model beside the one whose tensor was recorded sees no smaller a picture than it needs."""
    configure(bench, folders={"x": FolderTable(models=[BUNDLE.name, "larger"])})
    bench.other = lambda name: model() if name == BUNDLE.name else larger(200)
    job = bench.job("x/a.jpg", jpeg(), has_tensor=True, jpeg_scale=8)
    job.inbox_folder = "x"
    durable.put(job.tensor, npy(of_all_pixels(jpeg())))

    bench.run(PictureItem(job))

    bench.warm.finish()
    by_shape = {item.tensor.shape: item for item in tensors(bench)}
    whole = to_tensor(Image.open(BytesIO(jpeg())), larger(200).bundle.spec.input)
    assert {8} == {item.picture.jpeg_scale for item in by_shape.values()}
    np.testing.assert_allclose(by_shape[whole.shape].tensor, whole, atol=4 * 2 / 255)
    assert ["It was decoded at 1/2 of its size (fast_jpeg)."] == job.warnings
