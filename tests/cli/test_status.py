"""`fluxdrop status` and `fluxdrop doctor`, as they look on a terminal of 80 columns."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from fluxdrop.cli.status import status_lines
from fluxdrop.files.layout import REQUEST_SUFFIX, Root, RootLock
from fluxdrop.generate.hands import HostStatus
from fluxdrop.jobs.job_id import new_job_id
from fluxdrop.jobs.overview import overview
from fluxdrop.jobs.store import Row, Store
from fluxdrop.service.reporting.heartbeat import Current, DaemonStatus, Heartbeat
from fluxdrop.timestamps import now, rfc3339
from support.daemons import SAMPLES, environment, fluxdrop, serving

pytestmark = pytest.mark.slow

SNAPSHOTS = Path(__file__).parent / "snapshots"
NORMAL = [
    (r"\x1b\[[0-9;]*m", ""),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d( \w+)?", "TIME"),
    (r"\d+ (min|s)( \d+ s)? ago +", "SOME TIME AGO  "),
    (r"\d+ (min|s)( \d+ s)?(?=\))", "SOME TIME"),
    (r"pid \d+", "pid PID"),
    (r"\d+\.\d+(\.\d+)+", "VERSION"),
    (r"/tmp/fd-........", "ROOT"),
    (r"per minute  .*", "per minute  RATES"),
    (r"\d\.\d{3}  ", "0.987  "),
    (r"started in [\d.]+ s, [\d.]+ ms", "started in N s, N ms"),
    (r"[\d,.]+ GB", "N GB"),
    (r"by    .*", "by    KIND"),
    (r"\d+ fine, \d+ to know", "N fine, N to know"),
    (r"(inotify +)[\d,]+", r"\1N"),
]
OF_THE_MACHINE = ("fluxdrop", "packages", "generator", "pipeline", "gpu", "service", "filesystem")
"""What doctor says of these is another thing on another machine."""


def normal(text: str) -> str:
    """*text* without what is different each time."""
    for pattern, instead in NORMAL:
        text = re.sub(pattern, instead, text)
    names = "|".join(OF_THE_MACHINE)
    return re.sub(rf"(?m)^[✓-] ({names}) .*(\n    .*)*", r"? \1", text)


def matches(name: str, text: str) -> bool:
    """Whether *text* is what the snapshot *name* has, and fits 80 columns."""
    assert [] == [line for line in text.splitlines() if cell_len(line) > 80]
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("FLUXDROP_SNAPSHOTS"):
        path.write_text(normal(text))
    assert path.read_text() == normal(text)
    return True


@pytest.fixture
def short() -> Iterator[Root]:
    """A root whose path is as long on every machine, so that lines are broken alike."""
    folder = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    root = Root(folder)
    root.create()
    yield root
    shutil.rmtree(folder)


def test_on_80_columns(short: Root, tmp_path: Path) -> None:
    """status and doctor read well at 80 columns, with a daemon, after it, and with results gone."""
    (short.inbox / "holiday.png").write_bytes(b"no picture")
    alone = {
        "engine": "onnxruntime",
        "data_dir": tmp_path,
        "julia": "",
        "settle_seconds": 0.1,
    }
    env = {**environment(**alone), "COLUMNS": "80", "PATH": "/usr/bin:/bin"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fluxdrop", *command, "--root", str(short.path)],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip

    with serving(short, engine="onnxruntime", settle_seconds=0.1) as daemon:
        for ended, name in enumerate(("angular_star_01", "round_ring_01"), 2):
            shutil.copyfile(SAMPLES / f"{name}.png", short.inbox / f"{name}.png")
            daemon.wait_for_ends(ended)
        daemon.wait_until(
            lambda: not any(json.loads(short.heartbeat.read_bytes())["stages"].values()), "rest"
        )
        running, healthy = run("status"), run("doctor")
        assert 0 == daemon.stop()
    (short.outputs / "angular_star_01.json").unlink()
    (short.outputs / "round_ring_01.png").unlink()
    (short.path / "fluxdrop.toml").write_text("engin = 1")
    stopped, broken = run("status"), run("doctor")

    assert [0, 0, 3, 1] == [ran.returncode for ran in (running, healthy, stopped, broken)]
    assert matches("status-running", running.stdout)
    assert matches("doctor", healthy.stdout)
    assert matches("status-stopped", stopped.stdout)
    assert matches("doctor-broken", broken.stdout)


def write_status(root: Root, **facts: Any) -> None:
    """Write what a daemon in this process would say of itself."""
    said: dict[str, Any] = {
        "pid": os.getpid(),
        "version": "1",
        "started": now(),
        "model": "m",
        "engine": None,
        "generator_pid": None,
        "watch": "events",
        "filesystem": "ext4",
        "inbox": 0,
        "stages": {"generate": 3, "predict": 0},
        "current": None,
        "degraded": [],
    }
    Heartbeat(root.heartbeat).write(DaemonStatus(**{**said, **facts}))


def test_degraded(root: Root) -> None:
    """A daemon with an outage, and one that fell silent, are degraded: exit code 1 and the reason."""
    with closing(RootLock(root)):
        starting = fluxdrop("status", "--root", root.path)
        write_status(root, pid=os.getpid() + 1)
        of_another = overview(root).verdict
        write_status(
            root, current=Current(job_id="a", file="cat.txt", step=3, steps=20, pictures=1)
        )
        running = fluxdrop("status", "--root", root.path)
        write_status(root, degraded=["publish: No space left on device"])
        degraded = fluxdrop("status", "--root", root.path)
        write_status(root)
        os.utime(root.heartbeat, (0, 0))
        silent = json.loads(fluxdrop("status", "--json", "--root", root.path).stdout)

    assert (0, "starting", "starting") == (
        starting.returncode,
        starting.stdout.split()[1],
        of_another,
    )
    assert "cat.txt (a), step 3 of 20" in running.stdout
    assert "generate 3, predict 0" in running.stdout
    assert (0, 1) == (running.returncode, degraded.returncode)
    assert "degraded    publish: No space left on device" in degraded.stdout
    assert ("degraded", True) == (
        silent["state"],
        silent["degraded"][0].startswith("daemon: it has said nothing for"),
    )


def test_hosts(root: Root) -> None:
    """The hosts of a cluster are a table with what each makes and how fast, and why one is not used; its text fits 80
    columns. Without a cluster there is none."""
    seen = rfc3339(datetime.now(UTC) - timedelta(days=2))
    run = Current(job_id="a", file="cat.txt", step=3, steps=20, pictures=1)
    hosts = [
        HostStatus(
            name="gpu-1", state="busy", gpu="NVIDIA H100 80GB HBM3", jobs=["a"], slots=2,
            pictures_per_hour=1234.5, last_seen=seen,
        ),
        HostStatus(name="gpu-2", state="ready", gpu="cpu", slots=1, last_seen=seen),
        HostStatus(name="gpu-3", state="unused", reason="It has fluxdrop 0.1.0, the station 0.2.0."),
    ]  # fmt: skip
    with closing(RootLock(root)):
        write_status(root)
        without = fluxdrop("status", "--root", root.path).stdout
        write_status(root, hosts=hosts, current=run, currents=[run])
        lines = list(status_lines(overview(root), 80))
        told = json.loads(fluxdrop("status", "--json", "--root", root.path).stdout)["daemon"]

    table = [" ".join(line.split()) for line in lines if line.startswith("gpu-")]
    assert table[0].startswith("gpu-1 2 x NVIDIA H100 80GB H 1,234 2 d cat.txt (a),")
    assert table[1] == "gpu-2 cpu 2 d ready"
    assert table[2].startswith("gpu-3 never unused: It has fluxdrop")
    assert "step 3 of 20" in " ".join(" ".join(lines).split())
    assert not any(line.startswith("generating") for line in lines)
    assert max(map(cell_len, lines)) <= 80
    assert "per hour" not in without
    assert ["gpu-1", "gpu-2", "gpu-3"] == [host["name"] for host in told["hosts"]]


def test_damaged_index(root: Root) -> None:
    """status tells of an index that cannot be read, and of all the rest."""
    root.database.write_bytes(b"no database " * 100)
    (root.inbox / "cat.png").touch()

    seen = overview(root)

    assert ("not running", 1) == (seen.verdict, seen.facts["inbox"])
    assert "jobs.sqlite3 cannot be used" in seen.facts["degraded"][0]


def test_rates(root: Root) -> None:
    """The rates are of the jobs that ended within 1, 5 and 15 minutes."""
    moment = datetime.now(UTC)
    with closing(Store(root.database)) as store:
        store.finished(
            Row(
                str(age), "failed" if age == 70 else "done", "picture", "x.png",
                created=now(), finished=rfc3339(moment - timedelta(seconds=age)),
            )
            for age in (1, 2, 70, 400, 1000)
        )  # fmt: skip

    assert {
        "1": {"done": 2.0, "failed": 0.0},
        "5": {"done": 0.4, "failed": 0.2},
        "15": {"done": 0.2, "failed": 0.07},
    } == overview(root).facts["per_minute"]


def test_questions_to_the_index_do_not_grow(root: Root) -> None:
    """No question that status asks of the index reads all of it."""
    asked: list[str] = []
    with closing(Store(root.database)) as store:
        store._db.set_trace_callback(asked.append)
        store.counts()
        store.latest("done", 5)
        store.ended_between("failed", datetime.now(UTC), datetime.now(UTC))
        store._db.set_trace_callback(None)
        plans = [
            row[-1]
            for question in asked
            for row in store._db.execute(f"EXPLAIN QUERY PLAN {question}").fetchall()
        ]

    assert 3 == len(plans)
    assert [] == [plan for plan in plans if "SCAN" in plan and "counts" not in plan]


def test_status_imports_little(root: Root) -> None:
    """status loads nothing that takes longer to load than it takes itself."""
    code = (
        "import sys; sys.argv[1:] = ['status', '--root', sys.argv[1]]\n"
        "from fluxdrop.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = ('msgspec', 'numpy', 'rich.console', 'pydantic', 'structlog', 'watchdog')\n"
        "print([name for name in heavy if name in sys.modules])"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code, root.path], capture_output=True, text=True, check=True
    )

    assert "[]" == ended.stdout.splitlines()[-1]


def test_watch_in_a_pipe(root: Root) -> None:
    """In a pipe --watch prints again and again, until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fluxdrop", "status", "--watch", "--root", str(root.path)],
        stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        lines = [process.stdout.readline() for _ in range(9)]
        process.terminate()
    process.wait()

    assert 2 == sum(line.split() == ["state", "not", "running"] for line in lines)


def test_watch_on_a_terminal(root: Root) -> None:
    """On a terminal --watch has a screen of its own, and gives it back on Ctrl-C."""
    ours, theirs = pty.openpty()
    # A shell that put the tests into the background has them ignore Ctrl-C.
    heeding = ["env", "--default-signal=INT", sys.executable]
    process = subprocess.Popen(
        [*heeding, "-m", "fluxdrop", "status", "--watch", "--root", str(root.path)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**environment(), "TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    shown = b""
    while b"per minute" not in shown:
        shown += os.read(ours, 1 << 16)
    process.send_signal(signal.SIGINT)
    while b"\x1b[?1049l" not in shown:
        shown += os.read(ours, 1 << 16)
    os.close(theirs)
    os.close(ours)

    assert 130 == process.wait()
    assert b"\x1b[?1049h" in shown


def test_requests(root: Root) -> None:
    """What commands asked and nobody took yet is counted, and no other file beside it."""
    (root.requests / f"{new_job_id()}{REQUEST_SUFFIX}").write_text("{}")
    (root.requests / f".{new_job_id()}{REQUEST_SUFFIX}.part").write_text("{}")

    assert 1 == overview(root).facts["requests"]
