"""Folders of the inbox with models of their own, served by real daemons."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import Any

import numpy as np
import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from support.answer_models import bundle, model, red_picture, sigmoid_model
from support.daemons import SAMPLES, degraded_reasons, failures, fluxdrop, results, serving
from support.needs import needs_julia

pytestmark = pytest.mark.slow

AGE = 'output = "regression"\nvalue_name = "age"\nunit = "years"'
FOUND = 'labels = ["red", "round", "big"]\noutput = "multi-label"'


def make_models(root: Root) -> None:
    """Install in *root* the models `age`, `found` and `vector`, none of which has a label of the default one."""
    bundle(root.models / "age", model([[37.25], [0.0], [0.0]]), AGE)
    bundle(root.models / "found", sigmoid_model(0.118, 0.645, 0.553), FOUND)
    rows = [[1.5, -2.0, 0.25], [0.0] * 3, [0.0] * 3]
    bundle(root.models / "vector", model(rows), 'output = "embedding"')


def configure(root: Root, text: str) -> None:
    """Write *text* to fluxdrop.toml."""
    (root.path / "fluxdrop.toml").write_text(
        f'engine = "onnxruntime"\nsettle_seconds = 0.1\n{text}'
    )


def drop(root: Root, *names: str) -> None:
    """Drop a red picture under each of *names*, and a sample under those that end in `sample.png`."""
    for name in names:
        target = root.inbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("sample.png"):
            shutil.copyfile(SAMPLES / "round_circle_01.png", target)
        else:
            red_picture(target)


def run_once(root: Root, code: int = 0) -> None:
    """Do all that waits in *root*; the daemon ends with *code*."""
    ended = fluxdrop("run", "--once", "--root", root.path)
    assert code == ended.returncode, ended.stderr


def said(record: dict[str, Any]) -> tuple[str | None, str, Any]:
    """The folder and the model of *record*, and its answer in short."""
    answer = (
        record["values"] or record["labels"] or record["embedding"] or record["top"][0]["label"]
    )
    return record["folder"], record["model"]["bundle"], answer


def test_a_folder_a_model(root: Root) -> None:
    """What is dropped below a configured folder is answered by its model, by that of the most specific one, and all
    else by the model in use, in one flood of all of them."""
    make_models(root)
    configure(root, '[folders.xray]\nmodel = "age"\n[folders."xray/hands"]\nmodel = "found"\n')
    drop(
        root, "sample.png", "xray/a.png", "xray/deep/b.png", "xray/hands/c.png", "xrays/sample.png"
    )
    run_once(root)

    age = [{"name": "age", "value": 37.25, "unit": "years"}]
    assert {} == failures(root)
    assert {
        "sample.json": (None, Settings().model, "round"),
        "xray/a.json": ("xray", "age", age),
        "xray/deep/b.json": ("xray", "age", age),
        "xray/hands/c.json": ("xray/hands", "found", ["round", "big"]),
        "xrays/sample.json": (None, Settings().model, "round"),
    } == {name: said(record) for name, record in results(root).items()}
    summary = (root.outputs / ".gallery" / "summary.js").read_text()
    assert '"folders":{"xray":2,"xray/hands":1}' in summary


def test_several_models(root: Root) -> None:
    """Several models give one result with an entry for each, in the table's order; its own fields are the first one's,
    and the embedding of a further one is a file of its own. `show` and a verified replay know all of them."""
    make_models(root)
    configure(root, '[folders.x]\nmodels = ["found", "age", "vector"]\nresult_labels = 2\n')
    drop(root, "x/a.png")
    run_once(root)
    record = results(root)["x/a.json"]
    shown = fluxdrop("show", "x/a", "--root", root.path).stdout
    with serving(root) as daemon:
        verified = fluxdrop("replay", "x/a", "--verify", "--wait", "--root", root.path)
        daemon.stop()

    assert 0 == verified.returncode, verified.stdout + verified.stderr
    again = next(one for name, one in results(root).items() if name != "x/a.json")
    assert 3 == len(again["predictions"])
    kinds = [(entry["model"]["bundle"], entry["kind"]) for entry in record["predictions"]]
    assert [("found", "multi-label"), ("age", "regression"), ("vector", "embedding")] == kinds
    first = record["predictions"][0]
    assert {key: record[key] for key in first} == first
    assert (["round", "big"], 3) == (list(record["probabilities"]), record["label_count"])
    embedding = record["predictions"][2]["embedding"]
    assert {"file": "outputs/x/a.3.npy", "dimension": 3} == embedding
    assert [1.5, -2.0, 0.25] == np.load(root.path / embedding["file"]).tolist()
    assert all(text in shown for text in ("37.25 years", "3 numbers", "round, big"))


def test_models_that_cannot_be_used(root: Root) -> None:
    """A model that is missing, and one that no engine can run, fail the files of their folders with the reason, also
    beside a model that works; what is dropped elsewhere is done."""
    make_models(root)
    broken = bundle(root.models / "broken", model([[1.0], [0.0], [0.0]]), AGE)
    (broken.folder / "model.onnx").write_bytes(b"no model")
    tables = {"gone": '"nowhere"', "bad": '"broken"', "both": '"age", "broken"', "good": '"age"'}
    configure(
        root, "".join(f"[folders.{name}]\nmodels = [{names}]\n" for name, names in tables.items())
    )
    drop(root, "sample.png", *(f"{name}/{n}.png" for name in tables for n in range(3)))
    run_once(root, 1)

    assert {"sample.json", *(f"good/{n}.json" for n in range(3))} == set(results(root))
    reasons = {name: record["error"] for name, record in failures(root).items()}
    assert 9 == len(reasons)
    assert "no model bundle nowhere" in reasons["gone/0.png.error.json"]["message"]
    assert "is not a valid ONNX model" in reasons["bad/1.png.error.json"]["message"]
    assert "The model broken: " in reasons["both/2.png.error.json"]["message"]


def test_more_models_than_stay_warm(root: Root) -> None:
    """With room for one model, a mixed flood for three, two of which answer together, is done as with room for all:
    each picture by its own models."""
    make_models(root)
    tables = '[folders.a]\nmodel = "age"\n[folders.f]\nmodel = "found"\n'
    configure(root, f'warm_models = 1\n{tables}[folders.v]\nmodels = ["vector", "age"]\n')
    names = [f"{folder}/{number:02}.png" for number in range(30) for folder in "afv"]
    drop(root, *names, "sample.png")
    run_once(root)

    wanted = {"a": "age", "f": "found", "v": "vector"}
    found = {name: record["model"]["bundle"] for name, record in results(root).items()}
    models = {name.replace(".png", ".json"): wanted[name[0]] for name in names}
    assert ({}, models | {"sample.json": Settings().model}) == (failures(root), found)


def test_daemon_with_folders(root: Root) -> None:
    """A daemon says which models are loaded and for which folders; a change of the model in use, and a reload that
    gives a folder another model, lose no picture; a model that a folder names is not removed."""
    make_models(root)
    configure(root, '[folders.xray]\nmodel = "age"\n')
    drop(root, *(f"xray/{n}.png" for n in range(40)), *(f"{n}sample.png" for n in range(40)))
    with serving(root) as daemon:
        daemon.wait_for_ends(1)
        used = fluxdrop("model", "use", "age", "--root", root.path)
        drop(root, "later/b.png", "xray/later.png")
        daemon.wait_for_ends(82)
        back = fluxdrop("model", "use", Settings().model, "--root", root.path)
        configure(root, '[folders.xray]\nmodel = "found"\n[folders.gone]\nmodel = "nowhere"\n')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until(lambda: "reloaded" in daemon.log_text(), "reload")
        drop(root, "xray/last.png")
        daemon.wait_for_ends(83)
        daemon.wait_until(lambda: b'"folders":["xray"]' in root.heartbeat.read_bytes(), "status")
        status = fluxdrop("status", "--root", root.path)
        daemon.wait_until(lambda: degraded_reasons(root), "a degraded state")
        degraded = degraded_reasons(root)
        removed = fluxdrop("model", "remove", "found", "--root", root.path)
        listed = fluxdrop("jobs", "--folder", "xray", "--root", root.path, "-n0", "--json")
        doctor = fluxdrop("doctor", "--root", root.path)
        daemon.stop()

    assert (0, 0) == (used.returncode, back.returncode), used.stderr + back.stderr
    found = {name: record["model"]["bundle"] for name, record in results(root).items()}
    assert {"age"} == {found[f"xray/{n}.json"] for n in range(40)}
    assert ("age", "age", "found") == tuple(
        found[name] for name in ("later/b.json", "xray/later.json", "xray/last.json")
    )
    assert 83 == len(found)
    also = [line for line in status.stdout.splitlines() if line.startswith("also")]
    assert ["found for xray"] == [line.split(None, 1)[1].partition(":")[0] for line in also]
    assert ["model nowhere: There is no model bundle nowhere."] == degraded
    assert (2, True) == (removed.returncode, "in use for the folder xray" in removed.stderr)
    assert 42 == len(json.loads(listed.stdout))
    assert "answered by found" in doctor.stdout
    assert "no model bundle nowhere" in doctor.stdout


@needs_julia
def test_worker_of_a_folder_that_is_killed(root: Root) -> None:
    """With the engine julia a folder's model has a worker of its own; when that is killed, another takes its place, and
    the model in use keeps its own."""
    make_models(root)
    configure(root, '[folders.xray]\nmodel = "age"\n')
    # The variable overrides fluxdrop.toml.
    with serving(root, engine="julia") as daemon:

        def worker() -> int | None:
            warm = json.loads(root.heartbeat.read_bytes())["warm"]
            return warm[0]["engine"]["pid"] if warm and warm[0]["engine"] else None

        daemon.wait_until(worker, "a warm model")
        main, first = json.loads(root.heartbeat.read_bytes())["engine"]["pid"], worker()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        drop(root, "xray/a.png", "sample.png")
        daemon.wait_for_ends(2)
        daemon.wait_until(lambda: worker() not in (None, first), "another worker")
        still = json.loads(root.heartbeat.read_bytes())["engine"]["pid"]
        daemon.stop()

    found = {name: record["model"]["bundle"] for name, record in results(root).items()}
    assert {"xray/a.json": "age", "sample.json": Settings().model} == found
    assert main == still != first
