"""What anybody may have put into outputs/ in place of a record."""

from __future__ import annotations

import json

import msgspec
import pytest

from fluxdrop.config import Settings
from fluxdrop.files.layout import Root
from fluxdrop.records.outputs import MAX_RECORD_BYTES, records
from fluxdrop.records.result import encode
from fluxdrop.service.daemon import Daemon
from support.daemons import fluxdrop
from support.gallery_records import failure
from support.published import done, publish

pytestmark = pytest.mark.slow

TOLD = encode(failure("cat.png"))
FOREIGN = {
    "utf8": b'{"status":"failed","schema_version":1,"job_id":"a\xff"}',
    "deep": b'{"status":"failed","a":' + b"[" * 100_000,
    "integer": TOLD.replace(b'"attempts": 1', b'"attempts": 18446744073709551616'),
    "negative": TOLD.replace(b'"attempts": 1', b'"attempts": -1'),
    "nameless": TOLD.replace(b'"cat.png"', b'""'),
    "nul": TOLD.replace(b'"cat.png"', rb'"a\u0000"'),
    "surrogate": TOLD.replace(b'"cat.png"', rb'"\ud800"'),
}


@pytest.fixture
def foreign(root: Root) -> Root:
    """A root with each of FOREIGN in outputs/, and no index."""
    for name, data in FOREIGN.items():
        assert data != TOLD
        (root.outputs / f"{name}.json").write_bytes(data)
    return root


def test_start_with_a_new_index(foreign: Root, png: bytes) -> None:
    """A daemon whose index is new passes over what is no record in outputs/, and does its work."""
    (foreign.inbox / "cat.png").write_bytes(png)

    Daemon(foreign, Settings(engine="onnxruntime", settle_seconds=0.1), once=True).run()

    assert (foreign.outputs / "cat.json").is_file()
    assert set(FOREIGN) == {path.stem for path in foreign.outputs.glob("*.json")} - {"cat"}


def test_gallery_of_foreign_records(foreign: Root) -> None:
    """The gallery is made anew of what is a record, whatever lies beside it."""
    (foreign.outputs / "ours.json").write_bytes(encode(failure("dog.png")))

    ended = fluxdrop("gallery", "--root", foreign.path)

    assert (0, "") == (ended.returncode, ended.stderr)


def test_large_records(root: Root) -> None:
    """What is larger than a record can be is not decoded, which takes twenty times its size."""
    made = failure("cat.png")
    for name, size in (("largest", MAX_RECORD_BYTES), ("larger", MAX_RECORD_BYTES + 1)):
        text = "x" * (size - len(encode(made)) + len(made.error.message))
        error = msgspec.structs.replace(made.error, message=text)
        data = encode(msgspec.structs.replace(made, error=error))
        assert size == len(data)
        (root.outputs / f"{name}.json").write_bytes(data)

    assert ["outputs/largest.json"] == [path for _, path in records(root)]
    assert MAX_RECORD_BYTES <= 1 << 22


@pytest.mark.parametrize("name", FOREIGN)
def test_commands_on_a_spoiled_record(root: Root, name: str) -> None:
    """show and replay of a job whose record somebody spoiled say so in one sentence."""
    ended = done(root, "cat.png")
    publish(root, [ended])
    job = ended.job.id
    (root.outputs / "cat.json").write_bytes(FOREIGN[name])

    shown = fluxdrop("show", job, "--json", "--root", root.path)
    replayed = fluxdrop("replay", job, "--root", root.path)

    assert (0, "") == (shown.returncode, shown.stderr)
    assert "cat.json is not a result of fluxdrop" in json.loads(shown.stdout)["problem"]
    assert (2, 1) == (replayed.returncode, len(replayed.stderr.splitlines()))
    assert "cat.json is not a result of fluxdrop" in replayed.stderr
