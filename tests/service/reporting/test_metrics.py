"""What Prometheus is told, read by Prometheus's own parser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluxdrop.config import Settings
from fluxdrop.errors import FluxdropError
from fluxdrop.files.layout import Root
from fluxdrop.generate.hands import HostStatus, attempts_lost, dispatch_seconds
from fluxdrop.provision import find_julia
from fluxdrop.service.reporting.heartbeat import read
from fluxdrop.service.reporting.metrics import Metrics
from support.daemons import fluxdrop, serving
from support.gallery_records import failure, on_host, result
from support.statuses import daemon_status

pytestmark = pytest.mark.slow

Labels = tuple[tuple[str, str], ...]


def values(text: str) -> dict[tuple[str, Labels], float]:
    """Each sample in *text* by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def scrape(port: int) -> str:
    """What Prometheus gets."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_daemon(root: Root, samples: Path) -> None:
    """A real daemon tells the same over HTTP and in the file: jobs done and failed with stage and
    kind, durations, queues, the inbox, and whether it is up."""
    port = free_port()
    pictures = sorted(samples.glob("*.png"))[:3]
    settings = {"metrics_port": port, "metrics_file": "fluxdrop.prom", "gallery": False}
    with serving(root, engine="onnxruntime", **settings) as daemon:
        for picture in pictures:
            (root.inbox / picture.name).write_bytes(picture.read_bytes())
        (root.inbox / "broken.jpg").write_bytes(b"no picture")
        daemon.wait_for_ends(4)
        done, failed = "fluxdrop_jobs_done_total", "fluxdrop_jobs_failed_total"
        daemon.wait_until(
            lambda: f"{failed}{{" in (text := scrape(port)) and f"{done} 3.0" in text,
            "four jobs counted",
        )
        scraped = values(scrape(port))
        assert 0 == daemon.stop()
    written = values((root.path / "fluxdrop.prom").read_text())

    predicted = (("stage", "predict"),)
    for found in (scraped, written):
        assert 3 == found[done, ()]
        assert 1 == found[failed, (("kind", "picture"), ("stage", "preprocess"))]
        assert 3 == found["fluxdrop_stage_duration_seconds_count", predicted]
        assert 0 < found["fluxdrop_stage_duration_seconds_sum", predicted] < 60
        assert 0 == found["fluxdrop_stage_jobs", predicted]
        assert 0 == found["fluxdrop_inbox_waiting", ()]
        assert 0 == found["fluxdrop_degraded", ()]
    assert 1 == scraped["fluxdrop_up", ()]
    assert 0 == written["fluxdrop_up", ()]
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_only_this_machine(root: Root) -> None:
    """The port is served on the loopback interface alone."""
    port = free_port()
    metrics = Metrics(root, Settings(metrics_port=port))
    try:
        sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
        listening = {line.split()[1] for line in sockets if line.split()[3] == "0A"}
    finally:
        metrics.close()

    assert {f"0100007F:{port:04X}"} == {at for at in listening if at.endswith(f":{port:04X}")}


def test_degraded_and_queues(root: Root) -> None:
    """A heartbeat with an outage, a queue and waiting files shows as such, and as gone afterwards."""
    metrics = Metrics(root, Settings(metrics_file="a.prom"))
    seen = []
    for facts in (
        daemon_status(degraded=["disk"], inbox=7, stages={"predict": 5}),
        daemon_status(),
    ):
        metrics.update(facts)
        found = values((root.path / "a.prom").read_text())
        names = ("fluxdrop_degraded", "fluxdrop_inbox_waiting")
        queue = found["fluxdrop_stage_jobs", (("stage", "predict"),)]
        seen.append((*(found[name, ()] for name in names), queue))

    assert [(1, 7, 5), (0, 0, 0)] == seen


@pytest.mark.skipif(find_julia() is None, reason="there is no Julia on this machine")
def test_replaced_worker(root: Root, samples: Path) -> None:
    """A worker that is killed is counted as started once more."""
    starts = ("fluxdrop_worker_starts_total", (("worker", "worker"),))
    file = root.path / "a.prom"
    with serving(root, engine="julia", metrics_file="a.prom") as daemon:
        daemon.wait_until(file.exists, "metrics")
        before = values(file.read_text())[starts]
        worker = read(root.heartbeat)
        assert worker is not None
        assert worker.engine is not None
        assert worker.engine.pid is not None
        os.kill(worker.engine.pid, signal.SIGKILL)
        (root.inbox / "a.png").write_bytes((samples / "round_ring_01.png").read_bytes())
        daemon.wait_for_ends(1)
        daemon.stop()

    assert (1, 2) == (before, values(file.read_text())[starts])


def test_cluster(root: Root) -> None:
    """Of a cluster, the hosts by state, each host's pictures, the lost attempts and the seconds of a dispatch are
    counted, each once; what differs in a reason is left out."""
    metrics = Metrics(root, Settings(metrics_file="a.prom", cluster="auto"))
    hosts = [HostStatus(name="gpu-1", state="busy"), HostStatus(name="gpu-2", state="lost")]
    attempts_lost.update(
        {
            ("gpu-2", "its disk is full: 1 MB"): 1,
            ("gpu-2", "its disk is full: 2 MB"): 2,
            ("gpu-1", "no object " + "0f" * 28): 1,
        }
    )
    dispatch_seconds.append(0.02)
    metrics.count(on_host(result("a", 1), "gpu-1"))
    for _ in range(2):
        metrics.update(daemon_status(hosts=hosts))
    found = values((root.path / "a.prom").read_text())
    attempts_lost.clear()

    states = [found["fluxdrop_hosts", (("state", state),)] for state in ("ready", "busy", "lost")]
    assert [0, 1, 1] == states
    assert 1 == found["fluxdrop_pictures_total", (("host", "gpu-1"),)]
    reason = (("host", "gpu-2"), ("reason", "its disk is full"))
    assert 3 == found["fluxdrop_attempts_lost_total", reason]
    reason = (("host", "gpu-1"), ("reason", "no object ID"))
    assert 1 == found["fluxdrop_attempts_lost_total", reason]
    assert 0 == found["fluxdrop_broker_restarts_total", ()]
    assert 1 == found["fluxdrop_dispatch_seconds_count", ()]


def test_no_cluster(root: Root) -> None:
    """Without a cluster there is no metric of one."""
    metrics = Metrics(root, Settings(metrics_file="a.prom"))
    metrics.count(result("a", 1))
    metrics.update(daemon_status())

    text = (root.path / "a.prom").read_text()

    assert "fluxdrop_hosts" not in text
    assert "fluxdrop_pictures" not in text


def test_hostile_kind(root: Root) -> None:
    """A failure's words can break no line of the file."""
    metrics = Metrics(root, Settings(metrics_file="a.prom"))
    metrics.count(result("a", 1))
    metrics.count(failure("b", 2, message='"}\nfluxdrop_up 7\n'))
    metrics.update(daemon_status())
    found = values((root.path / "a.prom").read_text())

    assert 1 == found["fluxdrop_up", ()]


def test_file_that_cannot_be_written(root: Root) -> None:
    """A folder that is missing is told as an error and holds up nothing."""
    metrics = Metrics(root, Settings(metrics_file="missing/a.prom"))

    metrics.update(daemon_status())

    assert f"{root.path}/missing/a.prom cannot be written: No such file or directory" == (
        metrics.last_error
    )


def test_port_that_is_taken(root: Root) -> None:
    """A port of somebody else's is refused by its name."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(FluxdropError, match=f"metrics_port is {port}"):
            Metrics(root, Settings(metrics_port=port))


def test_wrong_settings(root: Root) -> None:
    """A file that the collector would not read, and an impossible port, are refused at the start."""
    for key, value in {"metrics_file": "metrics.txt", "metrics_port": 70_000}.items():
        ran = fluxdrop("run", "--once", "--root", root.path, **{key: value})

        assert 2 == ran.returncode
        assert f"FLUXDROP_{key.upper()} in the environment is" in ran.stderr


def test_not_imported(root: Root) -> None:
    """Where no metrics are asked for, their library is never loaded."""
    code = (
        "import sys; from pathlib import Path; from fluxdrop.config import Settings;"
        "from fluxdrop.files.layout import Root; from fluxdrop.service.daemon import Daemon;"
        f"Daemon(Root(Path({str(root.path)!r})), Settings(engine='onnxruntime'), once=True).run();"
        "print('prometheus_client' in sys.modules)"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == ran.stdout.strip().splitlines()[-1]


def test_documentation(root: Root) -> None:
    """docs/metrics.md names every metric with its kind, and no other."""
    metrics = Metrics(root, Settings(metrics_file="a.prom", cluster="auto"))
    metrics.update(daemon_status())
    text = (root.path / "a.prom").read_text()
    kinds = {line.split()[2]: line.split()[3] for line in text.splitlines() if "# TYPE" in line}
    rows = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text().splitlines()
    cells = [row.replace("`", "").split("|")[1:3] for row in rows if row.startswith("| `fluxdrop")]
    named = {name.split("{")[0].strip(): kind.strip() for name, kind in cells}

    assert named == {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
