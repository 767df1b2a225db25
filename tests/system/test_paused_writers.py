"""Writers that pause, with a real daemon: what they wrote is done whole."""

from __future__ import annotations

import hashlib
import io
import time

from PIL import Image

from fluxdrop.files.layout import Root
from support.daemons import failures, results, serving
from support.needs import needs_generation

PROMPT = b"a red circle\nSteps: 1, CFG scale: 3, Size: 64x64, Seed: 7\n"


def picture(form: str) -> bytes:
    """A picture as a file of the format *form*."""
    out = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(out, form)
    return out.getvalue()


def pause() -> None:
    """Let many settle times pass."""
    time.sleep(1.5)


def sha256(data: bytes) -> str:
    """The digest that results tell."""
    return hashlib.sha256(data).hexdigest()


def test_pictures(root: Root) -> None:
    """Pictures of every format that pause halfway, open or closed, are done whole, each once."""
    forms = {
        "a.jpg": "JPEG",
        "b.webp": "WEBP",
        "c.png": "PNG",
        "d.tif": "TIFF",
        "e.gif": "GIF",
        "f.bmp": "BMP",
    }
    data = {name: picture(form) for name, form in forms.items()}
    with serving(root, engine="onnxruntime", settle_seconds=0.1) as daemon:
        for name, whole in data.items():
            (root.inbox / name).write_bytes(whole[: len(whole) // 2])
        pause()
        early = results(root) | failures(root)
        for name, whole in data.items():
            with (root.inbox / name).open("ab") as file:
                file.write(whole[len(whole) // 2 :])
        daemon.wait_for_ends(len(data))
        daemon.stop()

    assert {} == early == failures(root)
    assert {name: sha256(whole) for name, whole in data.items()} == {
        record["source"]["file"]: record["source"]["sha256"] for record in results(root).values()
    }


def test_jpeg_without_end(root: Root) -> None:
    """A JPEG that lacks the mark of its end alone is done, with a warning; one that lacks more fails."""
    data = picture("JPEG")
    with serving(root, engine="onnxruntime", settle_seconds=0.1, incomplete_seconds=1) as daemon:
        (root.inbox / "whole.jpg").write_bytes(data[:-2])
        (root.inbox / "cut.jpg").write_bytes(data[:-20])
        daemon.wait_for_ends(2)
        daemon.stop()

    ((name, record),) = results(root).items()
    assert ("whole.json", sha256(data[:-2])) == (name, record["source"]["sha256"])
    assert ["The JPEG lacks the mark of its end; all of its pixels are there."] == record[
        "warnings"
    ]
    assert data[:-2] == (root.path / record["image"]["file"]).read_bytes()
    assert ["cut.jpg.error.json"] == list(failures(root))
    assert "it ends after" in failures(root)["cut.jpg.error.json"]["error"]["message"]


@needs_generation
def test_prompts(root: Root) -> None:
    """A prompt whose writer pauses with the file open is taken whole. If it pauses for so long that the file is
    taken, what is written later is noticed, and the prompt is done again.
    """
    short, long = root.inbox / "short.txt", root.inbox / "long.txt"
    with serving(root, engine="onnxruntime", settle_seconds=0.1, incomplete_seconds=5) as daemon:
        with long.open("wb", buffering=0) as file:
            file.write(PROMPT[:30])
            with short.open("wb", buffering=0) as other:
                other.write(PROMPT[:30])
                pause()
                is_there = short.exists()
                other.write(PROMPT[30:])
            daemon.wait_until(lambda: not long.exists(), "claim")
            file.write(PROMPT[30:])
        daemon.wait_for_ends(2)
        daemon.stop()
        log = daemon.log()

    assert is_there
    assert ["long.txt"] == [line["file"] for line in log if line["event"] == "done again"]
    assert {"short.json", "long.json"} == set(results(root))
    for record in results(root).values():
        assert ("a red circle", 7) == (record["generation"]["prompt"], record["generation"]["seed"])
        assert (sha256(PROMPT), []) == (record["source"]["sha256"], record["warnings"])
    assert {} == failures(root)
    assert [] == list(root.work.iterdir())
