"""What a file, a result or an order can cause: one job's failure at most, never the end of a stage or the daemon."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from fluxdrop.files.layout import Root
from support.daemons import Daemon, failures, results, serving
from support.filesystems import MEGABYTE, ntfs


def events(daemon: Daemon, event: str) -> list[dict[str, Any]]:
    """The lines of *daemon*'s log that tell *event*."""
    return [line for line in daemon.log() if line["event"] == event]


def test_too_little_memory(root: Root, samples: Path) -> None:
    """A picture for which the memory does not suffice fails as internal, with one sentence and no traceback; the
    log has that, the next pictures are done by the same daemon, and the next start repeats nothing."""
    Image.new("RGB", (9000, 9000)).save(root.path / "huge.png")
    small = samples / "round_ring_01.png"
    with serving(root, engine="onnxruntime") as daemon:
        shutil.copyfile(small, root.inbox / "before.png")
        daemon.wait_for_ends(1)
        limit = psutil.Process(daemon.process.pid).memory_info().vms + 100 * MEGABYTE
        resource.prlimit(daemon.process.pid, resource.RLIMIT_AS, (limit, limit))
        (root.path / "huge.png").rename(root.inbox / "huge.png")
        daemon.wait_until(lambda: failures(root), "the failure")
        shutil.copyfile(small, root.inbox / "after.png")
        daemon.wait_for_ends(3)
        (defect,) = events(daemon, "defect")
        assert 0 == daemon.stop()
    with serving(root, engine="onnxruntime") as second:
        assert 0 == second.stop()

    (failure,) = failures(root).values()
    assert {"before.json", "after.json"} == set(results(root))
    assert ("preprocess", "internal") == (failure["error"]["stage"], failure["error"]["kind"])
    assert "There was not enough memory for huge.png." == failure["error"]["message"]
    assert "Traceback" in defect["exception"]
    assert [] == list(root.work.iterdir())


def test_names_that_outputs_refuses(tmp_path: Path, samples: Path) -> None:
    """Where the filesystem of outputs/ refuses a name, a result and a failure get plain names there, the result says
    so, and what else was dropped is done."""
    root = Root(tmp_path / "root")
    with ntfs(tmp_path) as mounted:
        root.path.mkdir()
        root.outputs.symlink_to(mounted)
        root.create()
        names = ["fine.png", "a:b?.png", "sub:folder/c.png", "aux.png"]
        with serving(root, engine="onnxruntime", incomplete_seconds=0.2) as daemon:
            for name in names:
                (root.inbox / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(samples / "round_ring_01.png", root.inbox / name)
            (root.inbox / "x|y.pdf").write_bytes(b"%PDF")
            daemon.wait_for_ends(5)
            assert 0 == daemon.stop()
        found, failed = results(root), failures(root)

    assert sorted(names) == sorted(record["source"]["file"] for record in found.values())
    assert {"fine.json", "a_b_.json", "sub_folder/c.json", "_aux.json"} == set(found)
    assert ["It could not be published under the name a:b?.png."] == found["a_b_.json"]["warnings"]
    assert ["x|y.pdf"] == [record["source"]["file"] for record in failed.values()]
    assert [] == list(root.work.iterdir())


def test_huge_files_are_not_read(root: Root, samples: Path) -> None:
    """Of a file that is not taken, by its kind or its size, fluxdrop reads next to nothing: it is moved."""
    for name in ("film.mp4", "huge.png", "huge.txt"):
        with (root.path / name).open("wb") as file:
            file.truncate(60 << 30)
    with serving(root, engine="onnxruntime", incomplete_seconds=0.2) as daemon:
        before = psutil.Process(daemon.process.pid).io_counters().read_chars
        for name in ("film.mp4", "huge.png", "huge.txt"):
            (root.path / name).rename(root.inbox / name)
        daemon.wait_for_ends(3)
        read = psutil.Process(daemon.process.pid).io_counters().read_chars - before
        assert 0 == daemon.stop()

    found = {record["source"]["file"]: record for record in failures(root).values()}
    assert {"film.mp4", "huge.png", "huge.txt"} == set(found)
    assert {None} == {record["source"]["sha256"] for record in found.values()}
    assert 60 << 30 == (root.failed / "film.mp4").stat().st_size
    assert read < 20 * MEGABYTE


def wait_for_reloads(daemon: Daemon, times: int) -> None:
    """Wait until *daemon* has read its settings anew so many times."""
    daemon.wait_until(lambda: len(events(daemon, "reloaded")) == times, "a reload")


def test_settings_survive_a_model_change(root: Root) -> None:
    """What a reload brought is still in use after the model was changed, so that another reload changes nothing."""
    settings = root.path / "fluxdrop.toml"
    settings.write_text('engine = "onnxruntime"\n')
    with serving(root) as daemon:
        settings.write_text('engine = "onnxruntime"\nsettle_seconds = 0.5\n')
        for times in (1, 2):
            daemon.process.send_signal(signal.SIGHUP)
            wait_for_reloads(daemon, times)
            use = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "fluxdrop",
                    "model",
                    "use",
                    "round-or-angular",
                    "--root",
                    root.path,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            assert (0, "") == (use.returncode, use.stderr)
        assert 0 == daemon.stop()

        assert [["settle_seconds"], []] == [line["changed"] for line in events(daemon, "reloaded")]
