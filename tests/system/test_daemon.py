"""The whole way through the house: a real daemon, real events, a real worker, a real pipeline."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import psutil
import pytest
from PIL import Image

from fluxdrop.files.layout import Root
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.onnxruntime_engine import OnnxruntimeEngine
from fluxdrop.provision import find_julia
from fluxdrop.records import schema
from support.daemons import (
    ends,
    environment,
    every_file,
    failures,
    fluxdrop,
    results,
    serving,
)
from support.needs import needs_generation

PROMPT = "a large red circle on a white background"
INFOTEXT = f"{PROMPT}\nSteps: 20, CFG scale: 3, Seed: 42, Size: 64x64\n"


@pytest.fixture(params=["julia", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that works without the other."""
    name: str = request.param
    if name == "julia" and find_julia() is None:
        pytest.skip("there is no Julia on this machine")
    return name


def drop(source: Path, folder: Path, name: str) -> None:
    """Copy *source* into *folder* as `cp` does."""
    subprocess.run(["cp", str(source), str(folder / name)], check=True)


@needs_generation
def test_prompt_and_picture(root: Root, samples: Path, engine: str) -> None:
    """A dropped prompt and a dropped square come back as images with results that say what ran."""
    (root.inbox / "circle.txt").write_text(INFOTEXT)
    drop(samples / "angular_square_01.png", root.inbox, "square.png")

    with serving(root, engine=engine) as daemon:
        daemon.wait_for_ends(2)
        assert 0 == daemon.stop()

    found = results(root)
    circle, square = found["circle.json"], found["square.json"]
    files = {
        "generated_images/circle.png",
        "generated_images/square.png",
        "outputs/circle.json",
        "outputs/circle.png",
        "outputs/circle.txt",
        "outputs/square.json",
        "outputs/square.png",
        *(
            f"preprocessed_images/{name}.{end}"
            for name in ("circle", "square")
            for end in ("npy", "png")
        ),
    }

    assert files == every_file(root)
    assert circle["probabilities"]["round"] > 0.9
    assert square["probabilities"]["angular"] > 0.9
    assert engine == circle["model"]["engine"]
    assert ("round-or-angular", "shapes-diffusion") == (
        circle["model"]["bundle"],
        circle["generator"]["model"],
    )
    assert (PROMPT, 42) == (circle["prompt"], circle["generation"]["seed"])
    if engine == "julia":
        install = find_julia()
        assert install is not None
        assert install.version == circle["model"]["julia"]
        assert circle["model"]["backend"] in ("fast", "flux", "plain")
    assert hashlib.sha256(INFOTEXT.encode()).hexdigest() == circle["source"]["sha256"]
    for record in (circle, square):
        jsonschema.validate(record, schema.build())
        image = (root.path / record["image"]["file"]).read_bytes()
        assert hashlib.sha256(image).hexdigest() == record["image"]["sha256"]
    tensor = np.load(root.preprocessed / "square.npy")
    reference = OnnxruntimeEngine(load_bundle("round-or-angular")).predict(tensor)[0]
    assert ((1, 1, 64, 64), np.float32) == (tensor.shape, tensor.dtype)
    np.testing.assert_allclose(list(square["probabilities"].values()), reference, atol=1e-4)


@needs_generation
def test_same_seed_same_bytes(root: Root) -> None:
    """The same prompt with the same seed gives the same image, byte for byte; replay does so too."""
    (root.inbox / "one.txt").write_text(INFOTEXT)
    assert 0 == fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime").returncode
    (root.inbox / "two.txt").write_text(INFOTEXT)
    assert 0 == fluxdrop("replay", "one", "--root", root.path).returncode
    assert 0 == fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime").returncode

    found = results(root)
    digests = {record["image"]["sha256"] for record in found.values()}

    assert {"one.json", "one-2.json", "two.json"} == set(found)
    assert 1 == len(digests)
    assert found["one.json"]["job_id"] == found["one-2.json"]["replay_of"]
    assert found["one.json"]["generation"] == found["one-2.json"]["generation"]


def test_slow_writer(root: Root, samples: Path) -> None:
    """Files written over 5 s in 20 pieces, and moved and copied ones, each come to one whole end.

    What is wrong with the prompt stands at its end, so that it is told without loading torch.
    """
    picture = (samples / "round_ring_02.png").read_bytes()
    text = "\n".join(f"line {number} of a prompt" for number in range(100)).encode()
    text += b"\nSteps: 0"
    staged = root.path / "staged.png"
    drop(samples / "round_ring_01.png", root.path, "staged.png")
    with serving(root, engine="onnxruntime") as daemon:
        drop(samples / "angular_star_01.png", root.inbox, "copied.png")
        staged.rename(root.inbox / "moved.png")
        for piece in range(20):
            for name, data in (("slow.png", picture), ("slow.txt", text)):
                with (root.inbox / name).open("ab") as file:
                    file.write(data[piece * len(data) // 20 : (piece + 1) * len(data) // 20])
            time.sleep(0.25)
        daemon.wait_for_ends(4)
        daemon.stop()

    found = results(root) | failures(root)
    sources = sorted(record["source"]["file"] for record in found.values())

    assert ["copied.png", "moved.png", "slow.png", "slow.txt"] == sources
    assert hashlib.sha256(picture).hexdigest() == found["slow.json"]["source"]["sha256"] or (
        hashlib.sha256(picture).hexdigest() == found["slow-2.json"]["source"]["sha256"]
    )
    whole_text = hashlib.sha256(text).hexdigest()
    assert whole_text in {record["source"]["sha256"] for record in found.values()}


def test_200_at_once(root: Root, samples: Path, engine: str) -> None:
    """200 pictures dropped at once have one result each, and one worker made all of them."""
    originals = sorted(samples.glob("*.png"))
    with serving(root, engine=engine) as daemon:
        for number in range(200):
            shutil.copyfile(originals[number % 12], root.inbox / f"{number:03}.png")
        daemon.wait_for_ends(200)
        daemon.stop()
        pids = {line["worker_pid"] for line in daemon.log() if line["event"] == "done"}
        starts = [line for line in daemon.log() if line["event"] == "worker started"]

    found = results(root)

    assert {f"{number:03}.json" for number in range(200)} == set(found)
    assert not failures(root)
    assert all(
        record["top"][0]["label"]
        == originals[int(record["source"]["file"][:3]) % 12].name.split("_")[0]
        for record in found.values()
    )
    assert 1 == len(pids)
    assert (1 if engine == "julia" else 0) == len(starts)
    assert not list(root.work.iterdir())


def test_names(root: Root, samples: Path) -> None:
    """Files found at start, odd names, equal names and subfolders each have their own result."""
    star, ring = samples / "angular_star_01.png", samples / "round_ring_01.png"
    (root.inbox / "sub" / "deeper").mkdir(parents=True)
    for name in ("ünï cöde 图.png", "equal.png", "sub/equal.png", "sub/deeper/a b.png"):
        drop(star, root.inbox, name)
    with serving(root, engine="onnxruntime") as daemon:
        daemon.wait_for_ends(4)
        drop(ring, root.inbox, "equal.png")
        daemon.wait_for_ends(5)
        drop(ring, root.inbox, "sub/equal.png")
        drop(ring, root.inbox, "new.PNG")
        daemon.wait_for_ends(7)
        daemon.stop()

    labels = {name: record["top"][0]["label"] for name, record in results(root).items()}

    assert {
        "ünï cöde 图.json": "angular",
        "equal.json": "angular",
        "sub/equal.json": "angular",
        "sub/deeper/a b.json": "angular",
        "equal-2.json": "round",
        "sub/equal-2.json": "round",
        "new.json": "round",
    } == labels
    assert star.read_bytes() == (root.outputs / "equal.png").read_bytes()
    assert ring.read_bytes() == (root.outputs / "equal-2.png").read_bytes()


def test_bad_files(root: Root, samples: Path) -> None:
    """What cannot be done lies untouched in outputs/failed/ with a reason, and the daemon goes on."""
    whole = (samples / "round_ring_01.png").read_bytes()
    bad = {
        "not-a-picture.png": b"this is text\n",
        "empty.png": b"",
        "empty.txt": b"",
        "truncated.png": whole[: len(whole) // 2],
        "latin.txt": "ein großer Kreis".encode("latin-1"),
        "blank.txt": b" \n\t\n",
        "notes.pdf": b"%PDF-1.7",
    }
    with serving(root, engine="onnxruntime", incomplete_seconds=2) as daemon:
        for name, data in bad.items():
            (root.inbox / name).write_bytes(data)
        daemon.wait_for_ends(len(bad))
        drop(samples / "round_ring_01.png", root.inbox, "good.png")
        daemon.wait_for_ends(len(bad) + 1)
        daemon.stop()

    errors = failures(root)

    assert {f"{name}.error.json" for name in bad} == set(errors)
    assert {"good.json"} == set(results(root))
    for name, data in bad.items():
        error = errors[f"{name}.error.json"]
        jsonschema.validate(error, schema.build())
        assert data == (root.failed / name).read_bytes()
        assert name in error["error"]["message"] or "prompt is empty" in error["error"]["message"]
        assert error["error"]["hint"]


def test_once(root: Root, samples: Path, engine: str) -> None:
    """run --once works off the inbox and exits with 0, or with 1 if something failed."""
    drop(samples / "round_circle_01.png", root.inbox, "good.png")
    good = fluxdrop("run", "--root", root.path, "--once", engine=engine)
    (root.inbox / "bad.png").write_bytes(b"no picture")
    bad = fluxdrop("run", "--root", root.path, "--once", engine=engine)

    assert (0, 1) == (good.returncode, bad.returncode)
    assert ({"good.json"}, {"bad.png.error.json"}) == (set(results(root)), set(failures(root)))


def test_killed_daemon_goes_on(root: Root, samples: Path, engine: str) -> None:
    """After SIGKILL in mid-work the next start finishes every job once, and no process is left."""
    originals = sorted(samples.glob("*.png"))
    for number in range(60):
        shutil.copyfile(originals[number % 12], root.inbox / f"{number:02}.png")
    with serving(root, engine=engine) as daemon:
        daemon.wait_for_ends(5)
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        daemon.process.kill()
        daemon.process.wait()
    _gone, alive = psutil.wait_procs(children, timeout=30)
    again = fluxdrop("run", "--root", root.path, "--once", engine=engine)

    assert [] == alive
    assert 0 == again.returncode
    assert {f"{number:02}.json" for number in range(60)} == set(results(root))
    assert 60 == len({record["job_id"] for record in results(root).values()})
    assert not list(root.work.iterdir())


def test_killed_worker_is_replaced(root: Root, samples: Path) -> None:
    """A worker that is killed is replaced, and the pictures dropped around it have their results."""
    if find_julia() is None:
        pytest.skip("there is no Julia on this machine")
    with serving(root, engine="julia") as daemon:
        drop(samples / "round_circle_01.png", root.inbox, "before.png")
        daemon.wait_for_ends(1)
        (started_line,) = [line for line in daemon.log() if line["event"] == "worker started"]
        os.kill(started_line["pid"], signal.SIGKILL)
        drop(samples / "angular_cross_01.png", root.inbox, "after.png")
        daemon.wait_for_ends(2)
        daemon.stop()

    labels = {name: record["top"][0]["label"] for name, record in results(root).items()}

    assert {"before.json": "round", "after.json": "angular"} == labels


def test_stop_gives_back(root: Root, samples: Path) -> None:
    """SIGTERM ends the daemon with code 0 and no child, and what it had not done is done later."""
    for number in range(100):
        shutil.copyfile(samples / "round_circle_01.png", root.inbox / f"{number:02}.png")
    with serving(root, engine="onnxruntime") as daemon:
        daemon.wait_for_ends(1)
        code = daemon.stop()
    fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime")

    assert 0 == code
    assert 100 == len(ends(root))
    assert not failures(root)


def test_second_daemon_refuses(root: Root) -> None:
    """A second daemon on a root refuses and names the first one's pid."""
    with serving(root, engine="onnxruntime") as daemon:
        second = fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime")

        assert 2 == second.returncode
        assert f"pid {daemon.process.pid}" in second.stderr


def test_named_engine_missing(root: Root, tmp_path: Path) -> None:
    """With engine = julia and no Julia the daemon does not start, and says what to do."""
    nowhere = {**environment(engine="julia", data_dir=tmp_path / "empty"), "PATH": str(tmp_path)}
    nowhere.pop("FLUXDROP_JULIA", None)
    ended = subprocess.run(
        [sys.executable, "-m", "fluxdrop", "run", "--root", str(root.path), "--once"],
        env=nowhere,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == ended.returncode
    assert "There is no Julia on this machine. Run `fluxdrop setup`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_auto_falls_back(root: Root, samples: Path, tmp_path: Path) -> None:
    """Without Julia, engine = auto runs onnxruntime, and log and result say why."""
    drop(samples / "round_circle_01.png", root.inbox, "circle.png")
    nowhere = {**environment(data_dir=tmp_path / "empty"), "PATH": str(tmp_path)}
    nowhere.pop("FLUXDROP_JULIA", None)
    nowhere.pop("FLUXDROP_ENGINE", None)
    ended = subprocess.run(
        [sys.executable, "-m", "fluxdrop", "run", "--root", str(root.path), "--once"],
        env=nowhere,
        capture_output=True,
        check=False,
    )

    model = results(root)["circle.json"]["model"]

    assert 0 == ended.returncode
    assert "onnxruntime" == model["engine"]
    assert "There is no Julia on this machine" in model["note"]


def test_daemon_without_torch(root: Root, samples: Path) -> None:
    """A daemon that was given pictures only has neither torch nor diffusers in memory, nor Ray."""
    with serving(root, engine="onnxruntime") as daemon:
        drop(samples / "round_circle_01.png", root.inbox, "circle.png")
        daemon.wait_for_ends(1)
        process = psutil.Process(daemon.process.pid)
        mapped = {Path(region.path).name for region in process.memory_maps()}

        assert not process.children()
        assert not {name for name in mapped if "torch" in name or "raylet" in name}
        assert any("onnxruntime" in name for name in mapped)


def test_picture_formats(root: Root, samples: Path) -> None:
    """A picture of any format is predicted, and stays the file that was dropped; the record tells the format."""
    image = Image.open(samples / "angular_square_01.png")
    image.save(root.inbox / "a.JPG", quality=95)
    image.save(root.inbox / "b.webp", lossless=True)
    image.save(root.inbox / "c.tif", compression="tiff_lzw")
    image.save(root.inbox / "d.jp2")
    originals = {path.name: path.read_bytes() for path in root.inbox.iterdir()}

    ended = fluxdrop("run", "--root", root.path, "--once", engine="onnxruntime")

    assert 0 == ended.returncode
    found = results(root)
    assert ["angular"] * 4 == [record["top"][0]["label"] for record in found.values()]
    formats = [found[f"{name}.json"]["image"]["format"] for name in "abcd"]
    assert ["JPEG", "WEBP", "TIFF", "JPEG2000"] == formats
    for name, data in originals.items():
        record = found[f"{name[0]}.json"]
        assert data == (root.outputs / name).read_bytes()
        assert (root.path / record["image"]["file"]).samefile(root.outputs / name)
        digest = hashlib.sha256(data).hexdigest()
        assert (digest, digest) == (record["source"]["sha256"], record["image"]["sha256"])
        assert (64, 64) == (record["image"]["width"], record["image"]["height"])
    assert set(originals) == {path.name for path in root.generated.iterdir()} - {".gitkeep"}
