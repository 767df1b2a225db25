"""Large pictures are decoded several at a time, in real jobs in a real root."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from fluxdrop.preprocess import picture
from fluxdrop.preprocess.spec import InputSpec
from fluxdrop.preprocess.tensor import fit, normalise, to_tensor
from fluxdrop.service.items import PictureItem, SwapModel, TensorItem
from fluxdrop.service.stages import preprocessing
from fluxdrop.service.stages.decoding_threads import PixelBudget
from support.fakes import full, in_danger, model
from support.jobs import BUNDLE
from support.preprocessing import Bench, large_png, png

SPEC = BUNDLE.spec.input


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has two."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1}, raising=False)


def meeting(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Have the pictures of this *width* wait for each other, two by two, while they are decoded."""
    barrier = threading.Barrier(2, timeout=60)

    def fit_together(image: Image.Image, spec: InputSpec) -> Image.Image:
        if image.width == width:
            barrier.wait()
        return fit(image, spec)

    monkeypatch.setattr(preprocessing, "fit", fit_together)


def test_two_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two large pictures are decoded at a time; the batch is handed on in its order with the same tensors as ever,
    each picture for the model in use in its place, and none is in danger any more."""
    meeting(monkeypatch, 300)
    files = [large_png(1), png(), large_png(2), large_png(3), png(colour=9), large_png(4)]
    made = [bench.job(f"{number}.png", data) for number, data in enumerate(files)]
    swap = SwapModel(model())

    bench.run(*map(PictureItem, made[:3]), swap, *map(PictureItem, made[3:]))

    (call,) = bench.ends.handed
    assert call[3] is swap
    prepared = [item for item in call if isinstance(item, TensorItem)]
    assert made == [item.job for item in prepared]
    assert [bench.first] * 3 + [swap.model] * 3 == [item.model for item in prepared]
    for item, data in zip(prepared, files, strict=True):
        expected = to_tensor(Image.open(BytesIO(data)), SPEC)
        assert expected.tobytes() == item.tensor.tobytes()
    assert [] == in_danger(bench.root, "preprocess")


def test_next_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the tensors of some pictures are made, the next ones are decoded; they are handed on after them, and the
    pictures that follow a change of the model get the new one."""
    bench.settings = type(bench.settings)(batch_size=2)
    decoded_next = threading.Event()

    def fit_next(image: Image.Image, spec: InputSpec) -> Image.Image:
        if image.width == 301:
            decoded_next.set()
        return fit(image, spec)

    def normalise_late(*of: Any) -> Any:
        assert decoded_next.wait(60)
        return normalise(*of)

    monkeypatch.setattr(preprocessing, "fit", fit_next)
    monkeypatch.setattr(preprocessing, "normalise", normalise_late)
    made = [bench.job(f"{side}.png", large_png(side, side)) for side in (299, 300, 301, 302)]
    swap = SwapModel(model())

    bench.run(*map(PictureItem, made[:3]), swap, PictureItem(made[3]))

    assert [("299.png", "300.png"), ("301.png", swap), ("302.png",)] == bench.handed
    last = bench.ends.handed[2][0]
    assert isinstance(last, TensorItem)
    assert swap.model is last.model
    assert [1, 1, 1, 1] == bench.attempts(*made)


def test_full_disk_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails over the tensors of some pictures, neither they nor the next ones are decoded twice, and each
    is handed on once."""
    bench.settings = type(bench.settings)(batch_size=2)
    refusals = iter([full()])
    widths: list[int] = []

    def fit_counted(image: Image.Image, spec: InputSpec) -> Image.Image:
        widths.append(image.width)
        return fit(image, spec)

    def normalise_refused(*of: Any) -> Any:
        for error in refusals:
            raise error
        return normalise(*of)

    monkeypatch.setattr(preprocessing, "fit", fit_counted)
    monkeypatch.setattr(preprocessing, "normalise", normalise_refused)
    made = [bench.job(f"{side}.png", large_png(side, side)) for side in (299, 300, 301, 302)]

    bench.run(*map(PictureItem, made))

    assert [299, 300, 301, 302] == sorted(widths)
    assert ["299.png", "300.png", "301.png", "302.png"] == [
        name for call in bench.handed for name in call
    ]
    assert [1, 1, 1, 1] == bench.attempts(*made)


def test_one_fails(bench: Bench) -> None:
    """A large picture that is damaged fails alone."""
    damaged = bytearray(large_png(2))
    damaged[len(damaged) // 2] ^= 255
    made = [bench.job("a.png", large_png(1)), bench.job("b.png", bytes(damaged))]
    made.append(bench.job("c.png", large_png(3)))

    bench.run(*map(PictureItem, made))

    assert [("a.png", "c.png")] == bench.handed
    assert [("b.png", "preprocess", "picture")] == bench.ends.reasons
    assert [1, 1, 1] == bench.attempts(*made)


def test_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails over one of several large pictures, the stage waits for all, and each is handed on once."""
    in_hand: list[str] = []
    twice: list[str] = []
    refusals = iter([full()])

    def open_picture(path: Any, **options: Any) -> Any:
        if path.name in in_hand:
            twice.append(path.name)
        in_hand.append(path.name)
        try:
            if path.name.endswith("a.png"):
                for error in refusals:
                    raise error
            return real(path, **options)
        finally:
            in_hand.remove(path.name)

    real = picture.open_picture
    monkeypatch.setattr(preprocessing, "open_picture", open_picture)
    made = [bench.job(f"{name}.png", large_png(1)) for name in "abcd"]

    bench.run(*map(PictureItem, made))

    assert ([], [("a.png", "b.png", "c.png", "d.png")]) == (twice, bench.handed)
    assert [1, 1, 1, 1] == bench.attempts(*made)


def test_pixels_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that together have more pixels than one may have are decoded one after the other."""
    bench.settings = type(bench.settings)(batch_size=8, max_pixels=300 * 300 + 1)
    most, now = 0, 0
    lock = threading.Lock()

    def counting(image: Image.Image, spec: InputSpec) -> Image.Image:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        seen = fit(image, spec)
        with lock:
            now -= 1
        return seen

    monkeypatch.setattr(preprocessing, "fit", counting)
    made = [bench.job(f"{number}.png", large_png(number)) for number in range(8)]

    bench.run(*map(PictureItem, made))

    assert 1 == most
    assert 8 == len(bench.handed[0])


def test_budget() -> None:
    """A picture takes its pixels once; one that alone is over the budget waits until no other is decoded."""
    budget = PixelBudget(10)
    entered, order = threading.Event(), []

    def large() -> None:
        with budget.share() as take:
            entered.set()
            take(11)
            order.append("large")

    with budget.share() as take:
        take(9)
        take(9)
        other = threading.Thread(target=large)
        other.start()
        entered.wait()
        order.append("small")
    other.join()
    assert ["small", "large"] == order
    with budget.share() as take:
        take(10)
