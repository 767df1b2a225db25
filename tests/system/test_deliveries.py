"""A real daemon with hooks, results.csv and sorted pictures, killed on its way."""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
from pathlib import Path

import psutil

from fluxdrop.files.layout import Root
from fluxdrop.jobs.overview import overview
from support.daemons import fluxdrop, results, serving
from support.used_root import QUICK as USUAL
from support.web_receiver import half, web_receiver

QUICK = {**USUAL, "incomplete_seconds": 0.5}


def drop(root: Root, samples: Path, *names: str) -> None:
    """Drop a picture under each of *names*."""
    for name in names:
        shutil.copyfile(samples / "round_circle_01.png", root.inbox / name)


def script(folder: Path, text: str) -> Path:
    """A new program in *folder*."""
    path = folder / "hook.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def configure(root: Root, hooks: str, **settings: str) -> None:
    """Write the settings of *root*."""
    lines = [f"{key} = {value}\n" for key, value in settings.items()]
    (root.path / "fluxdrop.toml").write_text("".join(lines) + f"[hooks]\n{hooks}\n")


def table(root: Root) -> list[str]:
    """The ids of the jobs in results.csv."""
    text = root.results_csv.read_bytes().decode("utf-8-sig")
    return [row["job_id"] for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)]


def test_killed_between(root: Root, samples: Path) -> None:
    """Daemons are killed while they hand on what ended; a server that fails half of its answers has each record at
    least once in the end, and the table each result once."""
    with web_receiver(half) as receiver:
        configure(root, f'on_done = "{receiver.url}"', results_csv="true")
        for turn in range(3):
            drop(root, samples, *(f"{turn}-{number}.png" for number in range(3)))
            with serving(root, **QUICK) as daemon:
                daemon.wait_for_ends(2 + 3 * turn)
                daemon.process.kill()
                daemon.process.wait()
        with serving(root, **QUICK) as daemon:
            daemon.wait_for_ends(9)
            daemon.wait_until(lambda: len(set(receiver.ids())) == 9, "all records")
            daemon.wait_until(lambda: len(table(root)) == 9, "all rows")
            assert 0 == daemon.stop()

    jobs = sorted(result["job_id"] for result in results(root).values())
    assert jobs == sorted({name.removeprefix("msg_") for name in receiver.ids()})
    assert jobs == sorted(table(root))
    bodies = [json.loads(message.body) for message in receiver.taken]
    known = list(results(root).values())
    assert [] == [body for body in bodies if body not in known]


def test_dead_receivers_hold_nothing_up(root: Root, samples: Path, tmp_path: Path) -> None:
    """A receiver that never answers and a command that hangs delay no job; `status` says what is owed; the daemon ends
    with both at once, and leaves no process."""
    program = script(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 1000")
    (root.inbox / "x.pdf").write_text("nothing")
    drop(root, samples, "a.png", "b.png")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        configure(
            root,
            f'on_done = "{url}"\non_failed = ["{program}"]\ntimeout_seconds = 3600',
            metrics_file='"m.prom"',
        )
        with serving(root, **QUICK) as daemon:
            daemon.wait_for_ends(3)
            daemon.wait_until(lambda: (tmp_path / "pid").exists(), "the command")
            daemon.wait_until(
                lambda: [n["owed"] for n in overview(root).facts["hooks"].values()] == [2, 1],
                "what is owed",
            )
            daemon.wait_until(
                lambda: (
                    'fluxdrop_hook_owed{hook="on_done"} 2.0' in (root.path / "m.prom").read_text()
                ),
                "the metrics",
            )
            shown = fluxdrop("status", "--root", root.path).stdout
            assert 0 == daemon.stop()

    assert "on_done     2 to hand on" in shown
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    told = json.loads(fluxdrop("status", "--json", "--root", root.path).stdout)["hooks"]
    assert {"on_done": 2, "on_failed": 1} == {name: hook["owed"] for name, hook in told.items()}


def test_once(root: Root, samples: Path, tmp_path: Path) -> None:
    """`run --once` ends after the commands got the records; each picture is also below its label."""
    program = script(tmp_path, f"cat > {tmp_path}/record.$$")
    configure(
        root,
        f'on_done = ["{program}"]\non_failed = ["{program}", "--failed"]',
        results_csv="true",
        sort_by_label='"link"',
    )
    drop(root, samples, "a.png", "b.png")
    (root.inbox / "$(touch x);.pdf").write_text("nothing")

    ended = fluxdrop("run", "--once", "--root", root.path, **QUICK)

    records = [json.loads(path.read_bytes()) for path in tmp_path.glob("record.*")]
    assert 1 == ended.returncode
    assert ["done", "done", "failed"] == sorted(record["status"] for record in records)
    assert 2 == len(table(root))
    assert ["a.png", "b.png"] == sorted(
        path.name for path in (root.outputs / "by-label/round").iterdir()
    )
    assert not (root.path / "x").exists()
