"""The setting ``fast_jpeg`` from the drop to what the commands say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluxdrop.files.layout import Root
from support.daemons import SAMPLES, fluxdrop, results, serving
from support.pictures import scene

pytestmark = pytest.mark.slow


def photo(path: Path) -> Path:
    """A JPEG that the embedded model sees at a sixteenth of its size and less."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(1200, 1040).save(path, "JPEG", quality=90)
    return path


def test_replay_tells_the_difference(root: Root) -> None:
    """A result says that its JPEG was decoded smaller, which `show` and the table tell, too. A replay with the setting
    comes to the same, and so does one from the tensor without it; one that decodes all pixels does not, and the
    reason is said."""
    photo(root.inbox / "a.jpg")
    photo(root.inbox / "whole/b.jpg")
    (root.path / "fluxdrop.toml").write_text(
        'engine = "onnxruntime"\nfast_jpeg = true\n[folders.whole]\nfast_jpeg = false\n'
    )
    with serving(root) as daemon:
        daemon.wait_for_ends(2)
        same = fluxdrop("replay", "--all", "--verify", "--root", root.path)
        daemon.stop()
    with serving(root, fast_jpeg="false") as daemon:
        kept = fluxdrop(
            "replay", "a", "--from", "predict", "--verify", "--json", "--root", root.path
        )
        other = fluxdrop("replay", "a", "--verify", "--tolerance", "1", "--root", root.path)
        daemon.stop()
    shown = fluxdrop("show", "a", "--root", root.path).stdout
    table = fluxdrop("export", "--format", "jsonl", "-o", "-", "--root", root.path).stdout

    scales = {name: one["preprocessed"]["jpeg_scale"] for name, one in results(root).items()}
    assert (8, 1) == (scales["a.json"], scales["whole/b.json"])
    assert (0, "2 replayed: 2 the same\n") == (same.returncode, same.stdout)
    (drift,) = json.loads(kept.stdout)
    assert (0, "same", False) == (kept.returncode, drift["verdict"], drift["other_scale"])
    assert 1 == other.returncode
    assert "1 drifted\n1 decoded at another size (fast_jpeg), so their tensors" in other.stdout
    assert "1200 x 1040 pixels, decoded at 1/8 of it" in shown
    assert "It was decoded at 1/8 of its size (fast_jpeg)." in shown
    assert 3 == table.count("It was decoded at 1/8")


def test_stages_alone(root: Root, tmp_path: Path) -> None:
    """`preprocess` and `predict` follow the root's setting as its daemon does, and say so; a PNG is not concerned."""
    picture = photo(tmp_path / "a.jpg")
    (root.path / "fluxdrop.toml").write_text('engine = "onnxruntime"\nfast_jpeg = true\n')
    made = fluxdrop("preprocess", picture, "-o", tmp_path / "fast.npy", "--root", root.path)
    whole = fluxdrop("preprocess", picture, "-o", tmp_path / "whole.npy")
    predicted = fluxdrop("predict", picture, "--json", "--root", root.path)
    by_tensor = fluxdrop("predict", tmp_path / "fast.npy", "--json", "--root", root.path)
    png = fluxdrop("predict", SAMPLES / "round_ring_01.png", "--root", root.path)

    note = "Note: It was decoded at 1/8 of its size (fast_jpeg).\n"
    fast, full = (np.load(tmp_path / f"{name}.npy") for name in ("fast", "whole"))
    assert (0, note, "") == (made.returncode, made.stderr, whole.stderr)
    assert 0 < np.abs(fast - full).max() <= 3 * 2 / 255
    assert note in predicted.stderr
    assert "fast_jpeg" not in png.stderr
    answers = [json.loads(ended.stdout)["probabilities"] for ended in (predicted, by_tensor)]
    assert answers[0] == answers[1]
