"""`fluxdrop export`: what is in the table, in each format and form."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from fluxdrop.cli.export import export
from fluxdrop.files.layout import Root
from fluxdrop.records.result import EmbeddingFacts, Guess, PredictionFacts, Record, Value
from fluxdrop.tables.columns import NAMES
from fluxdrop.tables.csv_text import BOM
from support.daemons import environment, fluxdrop
from support.exported import fill_root, put_records
from support.gallery_records import failure, on_host, result

MULTI = msgspec.structs.replace(
    result("multi", 2),
    schema_version=2,
    kind="multi-label",
    probabilities={"cat": 0.9, "dog": 0.75, "cow": 0.125},
    top=[Guess(label="cat", index=0, p=0.9)],
    labels=["cat", "dog"],
    thresholds={"cat": 0.5, "dog": 0.5, "cow": 0.5},
)
REGRESSION = msgspec.structs.replace(
    result("size", 3),
    schema_version=2,
    kind="regression",
    probabilities={},
    top=[],
    values=[Value(name="age", value=-1.5, unit="years"), Value(name="score", value=2.0, unit="")],
)
EMBEDDING = msgspec.structs.replace(
    result("vector", 4),
    schema_version=2,
    kind="embedding",
    probabilities={},
    top=[],
    embedding=EmbeddingFacts(file="outputs/vector.npy", dimension=512),
)
SEVERAL = msgspec.structs.replace(
    result("several", 6),
    predictions=[
        PredictionFacts(**{name: getattr(one, name) for name in PredictionFacts.__struct_fields__})
        for one in (result("first", 0), MULTI)
    ],
    folder="xray",
)
ALL: list[tuple[Record, str]] = [
    (result("a", 0), "a"),
    (result("xray/b", 1), "xray/b"),
    (MULTI, "multi"),
    (REGRESSION, "size"),
    (EMBEDDING, "vector"),
    (failure("c.txt", 5), "c.txt"),
]


@pytest.fixture
def filled(root: Root) -> Root:
    """A root with a result of each kind, of schema_version 1 and 2, and a failure."""
    put_records(root, ALL)
    return root


def exported(root: Root, *flags: object) -> list[dict[str, str]]:
    """The rows of CSV that `fluxdrop export` prints."""
    ended = fluxdrop("export", "--root", root.path, *flags)
    assert 0 == ended.returncode, ended.stderr
    return list(csv.DictReader(io.StringIO(ended.stdout, newline="")))


def in_file(path: Path) -> list[dict[str, str]]:
    """The rows of the CSV file *path*."""
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.slow
def test_wide_csv(filled: Root) -> None:
    """Each result is a row, the oldest first, with the fixed columns and then one for each label and value; a label
    that a result does not have is empty."""
    rows = exported(filled)

    assert ["a", "xray/b", "multi", "size", "vector"] == [row["name"] for row in rows]
    labels = ["p_angular", "p_round", "p_cat", "p_dog", "p_cow", "value_age (years)", "value_score"]
    assert [*NAMES, *labels] == list(rows[0])
    assert [["0.75", "0.25", "", "", "", "", ""], ["", "", "0.9", "0.75", "0.125", "", ""]] == [
        [row[label] for label in labels] for row in (rows[0], rows[2])
    ]
    assert ("-1.5", "2.0") == (rows[3]["value_age (years)"], rows[3]["value_score"])
    facts = [(r["answer_kind"], r["label"], r["p"], r["labels"], r["embedding"]) for r in rows]
    assert [
        ("classification", "angular", "0.75", "", ""),
        ("classification", "round", "0.75", "", ""),
        ("multi-label", "cat", "0.9", '["cat", "dog"]', ""),
        ("regression", "", "", "", ""),
        ("embedding", "", "", "", "outputs/vector.npy"),
    ] == facts
    assert ("512", "18446744073709551615") == (rows[4]["dimension"], rows[0]["seed"])


@pytest.mark.slow
def test_long_csv(filled: Root) -> None:
    """The long form has a row for each label and value, and one for a result that has none; its columns are the same
    whatever the models are."""
    rows = exported(filled, "--long", "--state", "all")

    items = [(r["name"], r["item"], r["item_p"], r["item_found"], r["item_value"]) for r in rows]
    assert ("a", "angular", "0.75", "", "") == items[0]
    assert [("multi", "cat", "0.9", "true", ""), ("multi", "dog", "0.75", "true", "")] == items[4:6]
    assert ("multi", "cow", "0.125", "false", "") == items[6]
    assert [("size", "age", "", "", "-1.5"), ("size", "score", "", "", "2.0")] == items[7:9]
    assert [("vector", "", "", "", ""), ("c.txt", "", "", "", "")] == items[9:]
    assert ("failed", "generate", "It is empty.") == tuple(
        rows[-1][name] for name in ("status", "error_stage", "error")
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label": "round"}, ["xray/b"]),
        ({"label": "dog"}, ["multi"]),
        ({"model": "shapes of last year"}, ["a", "size"]),
        ({"folder": "xray"}, ["xray/b"]),
        ({"folder": "xra"}, []),
        ({"state": "failed"}, ["c.txt"]),
        ({"since": "2026-01-02"}, []),
        ({"until": "2025-12-31"}, []),
        ({"label": "round", "folder": "other"}, []),
    ],
)
def test_filters(
    filled: Root, tmp_path: Path, options: dict[str, Any], expected: list[str]
) -> None:
    """Label, model, folder, state, since and until select; together they narrow."""
    export(tmp_path / "a.csv", root=filled.path, **options)

    assert expected == [row["name"] for row in in_file(tmp_path / "a.csv")]


@pytest.mark.slow
def test_jsonl_and_parquet(filled: Root, tmp_path: Path) -> None:
    """JSON Lines and Parquet have the same columns with types; the format is told from the file's name."""
    told = fluxdrop("export", "--root", filled.path, "-o", tmp_path / "a.jsonl", "--json")
    fluxdrop("export", "--root", filled.path, "-o", tmp_path / "a.parquet", "--state", "all")

    rows: list[dict[str, Any]] = list(
        map(json.loads, (tmp_path / "a.jsonl").read_bytes().splitlines())
    )
    table = pq.read_table(tmp_path / "a.parquet")
    facts = table.to_pylist()
    assert {"format": "jsonl", "rows": 5, "skipped": 0}.items() <= json.loads(told.stdout).items()
    assert [*NAMES, "probabilities", "thresholds", "values"] == list(rows[0])
    assert {"angular": 0.75, "round": 0.25} == rows[0]["probabilities"]
    assert {"name": "age", "value": -1.5, "unit": "years"} == rows[3]["values"][0]
    assert [6, 2**64 - 1, ["cat", "dog"]] == [len(facts), facts[0]["seed"], facts[2]["labels"]]
    assert (0.75, None, -1.5) == (
        facts[0]["p_angular"],
        facts[1]["p_cat"],
        facts[3]["value_age (years)"],
    )
    assert 2026 == facts[0]["finished"].year


@pytest.mark.slow
def test_a_spreadsheet_runs_nothing(root: Root, tmp_path: Path) -> None:
    """A file of CSV begins with a byte order mark; a prompt that would be a formula has a ' before it, which is told;
    --raw and the other formats have the prompt as it is."""
    put_records(root, [(result("a", prompt="=1+1, größer"), "a")])
    csv_file = tmp_path / "a.csv"

    ended = fluxdrop("export", "--root", root.path, "-o", csv_file)

    assert csv_file.read_bytes().startswith(BOM + b"job_id,")
    assert "'=1+1, größer" == in_file(csv_file)[0]["prompt"]
    assert "A ' was put before 1 texts" in ended.stderr
    assert "=1+1, größer" == exported(root, "--raw")[0]["prompt"]
    lines = fluxdrop("export", "--root", root.path, "--format", "jsonl").stdout
    assert "=1+1, größer" == json.loads(lines)["prompt"]


@pytest.mark.slow
def test_several_models(root: Root) -> None:
    """A result of several models has a row for each, and is found by the model and the labels of each."""
    put_records(root, [(SEVERAL, "several")])

    rows = exported(root)
    by_second = exported(root, "--model", MULTI.model.bundle, "--label", "dog")
    neither = exported(root, "--model", MULTI.model.bundle, "--label", "angular")

    facts = [(row["name"], row["prediction"], row["label"], row["folder"]) for row in rows]
    assert [("several", "1", "angular", "xray"), ("several", "2", "cat", "xray")] == facts
    assert (["2"], []) == ([row["prediction"] for row in by_second], neither)


@pytest.mark.slow
def test_hosts(root: Root) -> None:
    """A picture's row has the host that made it and that host's class; another's has neither."""
    put_records(root, [(result("a", 0), "a"), (on_host(result("b", 1), "gpu-1"), "b")])

    rows = exported(root)

    assert [("", ""), ("gpu-1", "H100")] == [(row["host"], row["host_class"]) for row in rows]


def test_damaged_records_are_left_out(filled: Root, tmp_path: Path) -> None:
    """A record that is gone, cut off, another job's, or has values that no result has is left out with a sentence;
    the others are there."""
    (filled.outputs / "a.json").write_bytes(b'{"status": "done", ')
    (filled.outputs / "multi.json").unlink()
    (filled.outputs / "xray/b.json").write_bytes((filled.outputs / "size.json").read_bytes())
    odd = (filled.outputs / "vector.json").read_text().replace('"width": 64', f'"width": {2**70}')
    (filled.outputs / "vector.json").write_text(odd)

    ended = fluxdrop("export", "--root", filled.path, "-o", tmp_path / "a.csv")

    assert 0 == ended.returncode
    assert ["size"] == [row["name"] for row in in_file(tmp_path / "a.csv")]
    assert [True] * 4 == [line.startswith("left out: ") for line in ended.stderr.splitlines()]
    assert "outputs/xray/b.json is now of another job" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_rows_are_those_of_the_file(filled: Root, tmp_path: Path, form: str) -> None:
    """The report of the long form counts its rows, not the results; --format decides whatever the name is."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "table.xls"

    ended = fluxdrop(
        "export", "--root", filled.path, "--long", "--format", form, "-o", path, "--json"
    )

    assert 0 == ended.returncode, ended.stderr
    assert 10 == json.loads(ended.stdout)["rows"]
    if form != "parquet":
        assert 10 + (form == "csv") == len(path.read_text().splitlines())


@pytest.mark.slow
def test_without_an_index(filled: Root) -> None:
    """Without an index, as after a move, the table is made from outputs/, where a foreign JSON file is left out."""
    for path in filled.state.glob("jobs.sqlite3*"):
        path.unlink()
    (filled.outputs / "notes.json").write_text("[]")

    ended = fluxdrop("export", "--root", filled.path, "--label", "round")

    assert ["xray/b"] == [
        row["name"] for row in csv.DictReader(io.StringIO(ended.stdout, newline=""))
    ]
    assert "left out: outputs/notes.json is not a result of fluxdrop" in ended.stderr
    assert not filled.database.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-o", "{root}/inbox/a.csv"], "is the daemon's to write"),
        (["-o", "{root}/fluxdrop.toml", "--replace"], "is the daemon's to write"),
        (["-o", "{root}/results.csv"], "is the daemon's to write"),
        (["-o", "{other}/there.csv"], "already exists"),
        (["-o", "{other}", "--replace"], "is not a regular file"),
        (["-o", "{other}/none/a.csv"], "There is no folder"),
        (["--format", "parquet"], "Parquet is not written to standard output"),
        (["--json"], "--json reports on a file"),
        (["-o", "{other}/a.xlsx"], ".xlsx is not written"),
        (["-o", "{other}/a.ODS"], "Name a file .csv"),
    ],
)
def test_refusals(filled: Root, tmp_path: Path, flags: list[str], says: str) -> None:
    """What cannot be written, or would be an input of the daemon, is refused, and no file is left."""
    (filled.path / "fluxdrop.toml").write_text("results_csv = true\n")
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "there.csv").write_text("mine")
    words = [flag.format(root=filled.path, other=other) for flag in flags]

    ended = fluxdrop("export", "--root", filled.path, *words)

    assert (2, 1) == (ended.returncode, len(ended.stderr.splitlines()))
    assert says in ended.stderr
    assert [] == list(filled.inbox.iterdir())
    assert ["there.csv"] == [path.name for path in other.iterdir()]
    assert "mine" == (other / "there.csv").read_text()


@pytest.mark.slow
def test_too_many_columns(root: Root, tmp_path: Path) -> None:
    """More labels than columns are refused with the form that has room, and leave no file; that form takes them."""
    labels = {f"label {number}": 0.0 for number in range(5000)}
    put_records(root, [(msgspec.structs.replace(result("a"), probabilities=labels), "a")])

    ended = fluxdrop("export", "--root", root.path, "-o", tmp_path / "a.csv")

    assert 2 == ended.returncode
    assert "--long" in ended.stderr
    assert not (tmp_path / "a.csv").exists()
    assert 5000 == len(exported(root, "--long"))


@pytest.mark.slow
def test_memory_does_not_grow(root: Root, tmp_path: Path) -> None:
    """4,000 results take no more memory than 400, within the size of what is compressed at once."""

    def peak(count: int) -> int:
        fill_root(root, count)
        code = (
            "import resource, sys; from fluxdrop.cli.export import export; from pathlib import Path\n"
            f"export(Path({str(tmp_path / f'{count}.csv')!r}), root=Path({str(root.path)!r}))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stderr.split()[-1])

    few, many = peak(400), peak(4000)

    assert many - few < 4096, f"{few} KiB for 400, {many} KiB for 4,000"
