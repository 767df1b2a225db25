"""`fluxdrop jobs` and `fluxdrop show`."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from rich.cells import cell_len

from fluxdrop.cli.tables import print_rows
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.parameters import PromptParameters
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.parts import divide
from fluxdrop.jobs.select import find_job
from fluxdrop.jobs.store import Row, Store
from fluxdrop.publish.publisher import Publisher
from fluxdrop.requests.replay import build_replay, plan_replay
from fluxdrop.timestamps import now
from support import jobs
from support.daemons import fluxdrop
from support.exported import put_records
from support.gallery_records import on_host, result

pytestmark = pytest.mark.slow


def publish(root: Root, *sources: str) -> list[str]:
    """Publish a job for each of *sources*; their ids."""
    batch = [jobs.ended(jobs.job_in(jobs.claimed(root, source))) for source in sources]
    with closing(Store(root.database)) as store:
        Publisher(root, store).publish(batch)
    return [finished.job.id for finished in batch]


def listed(root: Root, *flags: str) -> list[str]:
    """The sources that `fluxdrop jobs` lists."""
    ended = fluxdrop("jobs", *flags, "--json", "--root", root.path)
    return sorted(row["source"] for row in json.loads(ended.stdout))


def test_jobs(root: Root) -> None:
    """jobs lists by state, time, name, label and model; what has no job is said to be so."""
    publish(root, "cat.png", "sub/dog.txt", "cat.pdf")

    everything = listed(root)
    by_flags = [
        listed(root, "--state", "failed"),
        listed(root, "--since", "1h", "--name", "cat*"),
        listed(root, "--label", "round", "--model", "round-or-angular"),
        listed(root, "--since", "2999-01-01"),
    ]
    (newest,) = listed(root, "--limit", "1")
    nothing = fluxdrop("jobs", "--model", "none", "--root", root.path)
    wrong = fluxdrop("jobs", "--since", "soon", "--root", root.path)

    assert ["cat.pdf", "cat.png", "sub/dog.txt"] == everything
    assert [["cat.pdf"], ["cat.pdf", "cat.png"], ["cat.png", "sub/dog.txt"], []] == by_flags
    assert newest in everything
    assert (0, "", "There are no such jobs.\n") == (
        nothing.returncode,
        nothing.stdout,
        nothing.stderr,
    )
    assert (2, 1) == (wrong.returncode, len(wrong.stderr.splitlines()))
    assert "--since is 'soon', which is neither a date nor an age." in wrong.stderr


def test_jobs_on_80_columns(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """jobs shows the NAME by which `show` and `replay` know a result, without what would harm a terminal; each line
    fits 80 columns."""
    ids = publish(root, "cat.png", "cat.png", "cat.pdf", "a\x1b" + "long" * 30 + "/dog.txt")
    monkeypatch.setenv("COLUMNS", "80")

    lines = fluxdrop("jobs", "--root", root.path).stdout.splitlines()
    rows = json.loads(fluxdrop("jobs", "--json", "--root", root.path).stdout)

    assert ["job", "state", "source", "name", "label", "or", "reason"] == lines[0].split()
    assert [] == [line for line in lines if cell_len(line) > 80 or "\x1b" in line]
    shown = {cells[0]: cells[1:] for cells in map(str.split, lines)}
    assert ["done", "cat.png", "cat-2", "round", "0.750"] == shown[ids[1]]
    assert ["failed", "cat.pdf", "cat.pdf", "It", "is", "empty."] == shown[ids[2]]
    names = {row["id"]: row["name"] for row in rows}
    assert ["cat", "cat-2", "cat.pdf", "dog"] == [names[job].rpartition("/")[2] for job in ids]


def test_jobs_of_a_host(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that made one of the pictures is a column, in JSON and a filter; where none did, there is no column."""
    put_records(root, [(result("dog", 0), "dog"), (on_host(result("cat", 1), "gpu-1"), "cat")])
    monkeypatch.setenv("COLUMNS", "80")

    title, *lines = fluxdrop("jobs", "--root", root.path).stdout.splitlines()
    without = fluxdrop("jobs", "--name", "dog", "--root", root.path).stdout.splitlines()
    rows = json.loads(fluxdrop("jobs", "--json", "--root", root.path).stdout)
    shown = fluxdrop("show", "cat", "--root", root.path).stdout

    assert ["job", "host", "state"] == title.split()[:3]
    assert ["gpu-1", "gone"] == [line.split()[1] for line in lines]
    assert "host" not in without[0]
    assert ["gpu-1", None] == [row["host"] for row in rows]
    assert ["cat.txt"] == listed(root, "--host", "gpu-1")
    assert "host gpu-1, host class H100" in " ".join(shown.split())
    assert all(cell_len(line) <= 80 for line in [title, *lines, *without])


REASON = "Sampler 'foo' is not known."


@pytest.mark.parametrize("source", ["a.txt", "portrait_of_a_cat.txt", "long/folder/" * 9 + "a.txt"])
@pytest.mark.parametrize("columns", ["80", "100", "200"])
def test_rows_lose_no_word(
    root: Root,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    columns: str,
) -> None:
    """On each width, each word of a reason is there, and so is each letter of a name."""
    monkeypatch.setenv("COLUMNS", columns)
    row = Row(new_job_id(), "failed", "prompt", source, error=REASON, created=now())

    print_rows(root, [row])

    title, *lines = capsys.readouterr().out.splitlines()
    starts = [title.index(name) for name in ("source", "name", "label")]
    words = " ".join(line[starts[2] :].strip() for line in lines).split()
    assert REASON.split() == words
    assert source == "".join(line[starts[0] : starts[1]].strip() for line in lines)
    assert all(len(line.rstrip()) <= int(columns) for line in [title, *lines])


def test_rows_in_a_pipe(
    root: Root, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no terminal says how wide it is, each job has one line."""
    monkeypatch.delenv("COLUMNS", raising=False)
    row = Row(new_job_id(), "failed", "prompt", "deep/" * 40, error=REASON * 9, created=now())

    print_rows(root, [row])

    (_, line) = capsys.readouterr().out.splitlines()
    assert "deep/" * 40 in line
    assert REASON * 9 in line


def test_gone_is_not_done(root: Root) -> None:
    """A job whose result was removed is not called done."""
    first, second = publish(root, "cat.png", "dog.png")
    (root.outputs / "cat.json").unlink()
    (root.outputs / "dog.png").unlink()

    lines = fluxdrop("jobs", "--root", root.path).stdout.splitlines()[1:]

    assert {first: "gone", second: "gone"} == {line.split()[0]: line.split()[1] for line in lines}


def test_show(root: Root) -> None:
    """show tells all of one job: parameters, probabilities, timings, and which files are gone."""
    (first,) = publish(root, "sub/cat.txt")
    (root.preprocessed / "sub/cat.npy").unlink()

    shown = fluxdrop("show", "sub/cat", "--root", root.path).stdout
    facts = json.loads(fluxdrop("show", first, "--json", "--root", root.path).stdout)

    assert {"seed 18446744073709551615", "0.750000  round", "predict 0.5 ms"} <= {
        text.strip()
        for line in shown.splitlines()
        for text in [line.removeprefix("probabilities").removeprefix("timings"), *line.split(", ")]
    }
    assert "preprocessed_images/sub/cat.npy  (gone)" in shown
    assert first == facts["record"]["job_id"]
    assert {
        "result": True,
        "input": True,
        "image": True,
        "generated": True,
        "tensor": False,
        "preview": True,
    } == {what: file["there"] for what, file in facts["files"].items()}


def test_show_failure(root: Root) -> None:
    """show tells of a failure why, and where its input lies."""
    (first,) = publish(root, "cat.pdf")

    shown = " ".join(fluxdrop("show", first[:-2], "--root", root.path).stdout.split())

    assert "failed at intake (incomplete) reason It is empty. Drop it again." in shown
    assert "input outputs/failed/cat.pdf" in shown


def test_show_without_record(root: Root) -> None:
    """A job whose record is gone, or that is in hand, is shown as far as it is known."""
    (first,) = publish(root, "cat.png")
    (root.outputs / "cat.json").unlink()
    job = jobs.job_in(jobs.claimed(root, "dog.png"))
    with closing(Store(root.database)) as store:
        store.claimed([jobs.claimed_row(job)])

    gone = fluxdrop("show", first, "--root", root.path)
    claimed = fluxdrop("show", job.id, "--root", root.path)

    assert (0, 0) == (gone.returncode, claimed.returncode)
    # A long path is folded in the middle of a word.
    text = "".join(gone.stdout.split())
    assert f"Therecordof{first}isgone:{root.outputs}/cat.json." in text
    assert ["state", "claimed"] == claimed.stdout.splitlines()[1].split()


def test_chain_of_replays(root: Root) -> None:
    """show tells what a job replays and what replays it, oldest first, whichever was asked for."""
    (first,) = publish(root, "cat.png")
    with closing(Store(root.database)) as store:
        for name in ("cat", "cat-2"):
            replay = plan_replay(root, find_job(root, store, name))
            asked = new_job_id()
            build_replay(root, replay, root.work / asked, 1000)
            Publisher(root, store).publish([jobs.done(jobs.job_in(root.work / asked))])
        chain = [find_job(root, store, name).id for name in ("cat", "cat-2", "cat-3")]

    shown = [
        [link["id"] for link in json.loads(ended.stdout)["chain"]]
        for ended in (fluxdrop("show", job, "--json", "--root", root.path) for job in chain)
    ]

    tables = [fluxdrop("show", job, "--root", root.path).stdout for job in chain]
    names = ("replay of", "replays")
    told = [{name: ids_beside(name, table) for name in names} for table in tables]

    assert first == chain[0]
    assert [chain] * 3 == shown
    assert [
        {"replay of": [], "replays": chain[1:]},
        {"replay of": [chain[0]], "replays": [chain[2]]},
        {"replay of": [chain[1], chain[0]], "replays": []},
    ] == told


def ids_beside(name: str, table: str) -> list[str]:
    """The first words of the lines that the row *name* of *table*, of `fluxdrop show`, has."""
    found: list[str] = []
    is_in = False
    for line in table.splitlines():
        is_in = line.startswith(f"{name} ") or (is_in and line.startswith(" "))
        if is_in:
            found.append(line.removeprefix(name).split()[0])
    return found


def test_circle_of_replays(root: Root) -> None:
    """Records by which two jobs replay each other do not keep show from ending."""
    with closing(Store(root.database)) as store:
        store.finished(
            Row(job, "failed", "picture", "x.png", replay_of=other, created=now(), finished=now())
            for job, other in (("a", "b"), ("b", "a"))
        )

    ended = fluxdrop("show", "a", "--root", root.path)

    assert (0, ["b"], ["b"]) == (
        ended.returncode,
        ids_beside("replay of", ended.stdout),
        ids_beside("replays", ended.stdout),
    )


def test_part(root: Root) -> None:
    """show tells which of the pictures of its prompt file a job makes, while it is in hand and when it has ended."""
    first = jobs.job_in(jobs.claimed(root, "cat.txt"))
    (second,) = divide(first, [PromptParameters(prompt=text) for text in "ab"])
    in_hand = jobs.job_in(second.folder)
    with closing(Store(root.database)) as store:
        store.claimed([jobs.claimed_row(in_hand)])
        Publisher(root, store).publish([jobs.done(first)])

    ended, claimed = (
        fluxdrop("show", job, "--root", root.path).stdout for job in ("cat", in_hand.id)
    )
    facts = json.loads(fluxdrop("show", "cat", "--json", "--root", root.path).stdout)

    assert f"1 of 2, the first is {first.id}" in ended
    assert f"2 of 2, the first is {first.id}" in claimed
    assert {"number": 1, "of": 2, "first": first.id} == facts["part"]


PATHS = [
    "outputs/sub/cat.json",
    "outputs/sub/cat.png",
    "outputs/sub/cat.txt",
    "generated_images/sub/cat.png",
    "preprocessed_images/sub/cat.npy",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("absolute", [True, False])
def test_by_path(root: Root, path: str, absolute: bool) -> None:
    """A job is found by any of its files, also when that is gone."""
    (first,) = publish(root, "sub/cat.txt")
    (root.path / path).unlink()

    with closing(Store(root.database)) as store:
        found = find_job(root, store, str(root.path / path) if absolute else path)

    assert first == found.id


def test_by_source(root: Root) -> None:
    """A job is found by what was dropped, as `fluxdrop jobs` names it; where it was dropped twice, both are told."""
    first, second, third = publish(root, "cat.txt", "cat.txt", "sub/dog.txt")

    with closing(Store(root.database)) as store:
        assert third == find_job(root, store, "sub/dog.txt").id
        with pytest.raises(FluxdropError) as error:
            find_job(root, store, "cat.txt")
        assert first in error.value.message
        assert second in error.value.message


@pytest.mark.parametrize(
    "path", ["outputs/failed/cat.pdf", "outputs/failed/cat.pdf.error.json", "cat.pdf"]
)
def test_failure_by_path(root: Root, path: str) -> None:
    """A failed job is found by its untouched input and by its error JSON."""
    (first,) = publish(root, "cat.pdf")

    with closing(Store(root.database)) as store:
        assert first == find_job(root, store, path).id


@pytest.mark.parametrize("path", ["/etc/hostname", "outputs", "inbox/cat.png", "outputs/dog.json"])
def test_path_of_no_job(root: Root, path: str) -> None:
    """A path that belongs to no job finds none."""
    publish(root, "cat.png")

    with (
        closing(Store(root.database)) as store,
        pytest.raises(FluxdropError, match="There is no job"),
    ):
        find_job(root, store, path)
