"""Files that whoever dropped them still writes to while they are being read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.parts import divide
from fluxdrop.jobs.store import Store
from fluxdrop.preprocess.picture import open_picture
from fluxdrop.service.items import PictureItem
from fluxdrop.service.stages import preprocessing
from support.jobs import claimed, job_in
from support.preprocessing import Bench, png

_HUGE = 1 << 42
"""More bytes than any test could read."""


@pytest.fixture
def store(root: Root) -> Iterator[Store]:
    """The index of a new root."""
    with closing(Store(root.database)) as made:
        yield made


@pytest.mark.parametrize("way", ["a picture", "with another name", "to be converted"])
def test_picture_that_grows(
    root: Root, store: Store, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A picture that grows after its size was checked fails at the limit, and the others are done."""
    bench = Bench(root, store)
    grown, other = bench.job("a.png", png()), bench.job("b.png", png())
    if way == "to be converted":
        Image.new("L", (64, 64)).save(grown.input, format="JPEG")
    if way == "with another name":
        (root.inbox / "other.png").hardlink_to(grown.input)

    def opened(path: Path, **options: Any) -> Any:
        picture = open_picture(path, **options)
        if path == grown.input:
            os.truncate(path, _HUGE)
        return picture

    monkeypatch.setattr(preprocessing, "open_picture", opened)
    monkeypatch.setattr(bench, "handler", _limited(bench))
    bench.run(PictureItem(grown), PictureItem(other))

    assert [("b.png",)] == bench.handed
    ((job, _, error),) = bench.ends.failed
    assert grown is job
    assert error.message.startswith("a.png grew over the limit of 10,000 bytes")


def test_prompt_that_grows(root: Root) -> None:
    """A prompt file that grows while it is divided is not copied beyond the limit, and no part is left."""
    job = job_in(claimed(root, "a.txt"))
    os.truncate(job.input, _HUGE)

    with pytest.raises(FluxdropError, match=r"a\.txt grew over"):
        divide(job, [PromptParameters(prompt=word) for word in "ab"], 1000)
    assert [job.folder] == list(root.work.iterdir())


def _limited(bench: Bench) -> Any:
    make = bench.handler

    def handler() -> Any:
        made = make()
        made.apply(Settings(batch_size=8, max_file_bytes=10_000))
        return made

    return handler
