"""Whether a root that came to rest has everything, once, whole, and nothing else."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from fluxdrop.files.layout import GALLERY, Root
from fluxdrop.jobs.store import Store
from fluxdrop.records.index_row import row_of
from fluxdrop.records.result import Failure, Record, Result, decode
from support.daemons import every_file

LASTING = {"jobs.sqlite3", "lock", "logs", "graphs", "models", "answers", "requests", "work"}
LASTING |= {
    "spares",
    "refused",
    "model",
    "gallery.lock",
    "plans.jsonl",
    "in-preprocess",
    "in-predict",
}
EMPTY = ("answers", "requests", "work")


def audit(
    root: Root,
    dropped: Mapping[str, tuple[str, bool]],
    replays: Mapping[str, str],
    strangers: Mapping[str, bytes],
    several: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Assert that each of *dropped* (by SHA-256: path below inbox/, whether it can be done) and of
    *replays* (by job id: which job it repeats) has one result, whole and in the index, and that
    nothing else lies in *root* but the files of *strangers*. Of a file among *several* there are as
    many results.
    """
    records = {
        str(path.relative_to(root.path)): decode(path.read_bytes())
        for path in root.outputs.rglob("*.json")
    }
    digests = {record.job_id: source_digest(root, path, record) for path, record in records.items()}
    _each_once(list(records.values()), digests, dropped, replays, several)
    files = {path: _digest(data) for path, data in strangers.items()}
    for path, record in records.items():
        files |= _files(root, path, record, bytes.fromhex(digests[record.job_id]))
    assert files == {path: _digest((root.path / path).read_bytes()) for path in files}
    there = every_file(root)
    assert files.keys() | records.keys() == there, (
        f"missing, and strange: {(files.keys() | records.keys()) - there}, {there - files.keys() - records.keys()}"
    )
    _is_tidy(root)
    _table_has_each_once(root, records)
    with closing(Store(root.database, read_only=True)) as store:
        rows = [store.get(record.job_id) for record in records.values()]
        counts = store.counts()
    found = [row._replace(inode=None) for row in rows if row is not None]
    told = [row_of(record, path) for path, record in records.items()]
    differing = [pair for pair in zip(told, found, strict=False) if pair[0] != pair[1]]
    assert told == found, f"the index differs: {differing}"
    states = Counter(row.state for row in found)
    assert {"claimed": 0, "done": states["done"], "failed": states["failed"]} == counts


def source_digest(root: Root, path: str, record: Record) -> str:
    """The digest of what was dropped; of what is not taken, whose record has none, by the file itself."""
    if record.source.sha256 is None and record.source.kind == "unknown":
        return _digest((root.path / path.removesuffix(".error.json")).read_bytes()).hex()
    return str(record.source.sha256)


def _each_once(
    records: list[Record],
    digests: Mapping[str, str],
    dropped: Mapping[str, tuple[str, bool]],
    replays: Mapping[str, str],
    several: Mapping[str, int],
) -> None:
    firsts = [record for record in records if record.replay_of is None]
    again = [record for record in records if record.replay_of is not None]
    ended = Counter(
        (digests[record.job_id], record.source.file, isinstance(record, Result))
        for record in firsts
    )
    expected = Counter(
        {(digest, *facts): several.get(digest, 1) for digest, facts in dropped.items()}
    )
    differences = expected - ended, ended - expected
    odd = {digest for difference in differences for digest, *_ in difference}
    of_odd = [
        (one.job_id, one.attempts, one.created) for one in firsts if digests[one.job_id] in odd
    ]
    assert (Counter(), Counter()) == differences, (
        f"lost, and more than there should be: {differences}; ended: {of_odd}"
    )
    assert dict(replays) == {record.job_id: record.replay_of for record in again}
    assert len(replays) == len(again)
    assert len(records) == len({record.job_id for record in records})


def _files(root: Root, path: str, record: Record, source: bytes) -> dict[str, bytes]:
    """The files that belong to *record*, which lies at *path*, with their digests; *source* is the input's."""
    if isinstance(record, Failure):
        return {path.removesuffix(".error.json"): source}
    name = path.removeprefix("outputs/").removesuffix(".json")
    with Image.open(root.path / record.image.file) as image:
        image.load()
        expected = (record.image.format, record.image.width, record.image.height)
        assert expected == (image.format, *image.size)
    with Image.open(root.path / record.preprocessed.preview) as preview:
        preview.load()
    tensor = np.load(root.path / record.preprocessed.file)
    assert record.preprocessed.shape == list(tensor.shape)
    suffix = Path(record.source.file).suffix
    shown_suffix = ".png" if suffix == ".txt" else suffix
    assert f"generated_images/{name}{shown_suffix}" == record.image.file
    files = {
        record.image.file: bytes.fromhex(record.image.sha256),
        f"outputs/{name}{shown_suffix}": bytes.fromhex(record.image.sha256),
    }
    for shown in (record.preprocessed.file, record.preprocessed.preview):
        files[shown] = _digest((root.path / shown).read_bytes())
    if record.embedding is not None:
        file = record.embedding.file
        assert (record.embedding.dimension,) == np.load(root.path / file).shape
        files[file] = _digest((root.path / file).read_bytes())
    if suffix == ".txt":
        files[f"outputs/{name}{suffix}"] = source
    return files


def _table_has_each_once(root: Root, records: Mapping[str, Record]) -> None:
    """results.csv, where it is kept, has a row for each result, and no other."""
    if root.results_csv.exists():
        text = root.results_csv.read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        done = {one.job_id: path for path, one in records.items() if isinstance(one, Result)}
        assert sorted(done.items()) == sorted((row["job_id"], row["record"]) for row in rows)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _is_tidy(root: Root) -> None:
    """Nothing is left of what was in the making."""
    assert {path.name for path in root.state.iterdir()} <= LASTING
    assert [] == list(root.spares.glob("*/*"))
    # Names in the inbox that a power cut brought back, of files that are published.
    assert [] == [path for path in root.refused.glob("*") if path.lstat().st_nlink < 2]
    # What a command was about to ask when the power was cut is no request; it goes when it is old.
    unasked = set(root.requests.glob(".*"))
    for name in EMPTY:
        left = sorted(
            str(path.relative_to(root.state))
            for path in (root.state / name).rglob("*")
            if path not in unasked
        )
        assert [] == left, f"left over: {left}"
    # The results may lie on another filesystem, by a symlink, which no walk follows.
    found = [path for top in (root.path, root.outputs) for path in top.rglob("*")]
    hidden = {path for path in found if path.name.startswith(".") or path.suffix == ".tmp"}
    strange = {root.state, root.outputs / GALLERY} ^ (hidden - unasked)
    assert not strange, f"left over, or missing: {sorted(map(str, strange))}"
