"""`fluxdrop doctor --cluster`, and what it says of hosts with faults."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import msgspec
import pytest

import hosts
from fluxdrop import __version__
from fluxdrop.cluster.examined import (
    Examination,
    ExaminedHost,
    HostReport,
    PictureReport,
    PipelineReport,
)
from fluxdrop.cluster.messages import HostFacts, decoded_facts
from fluxdrop.doctor import cluster as doctor
from fluxdrop.files.layout import Root
from hosts import Cluster
from support.daemons import environment, fluxdrop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A station and two hosts."""
    hosts.needed()
    with hosts.cluster(tmp_path_factory.mktemp("doctor"), 2) as made:
        yield made


def test_hosts(cluster: Cluster, root: Root) -> None:
    """Two hosts that are alike are found in order, with all that is told of each, and make the same picture."""
    ended = cluster.station.run(
        *(sys.executable, "-m", "fluxdrop", "doctor", "--cluster", "--json", "--root", root.path),
        env={**cluster.station.credentials(), **environment(cluster=hosts.address())},
        check=False,
    )

    assert 0 == ended.returncode, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    one, two = found["hosts"]
    assert ["host1", "host2"] == [one["name"], two["name"]]
    assert 64 == len(one["picture"]["sha256"])
    assert one["picture"]["sha256"] == two["picture"]["sha256"]
    assert {"python", "fluxdrop", "torch", "diffusers", "ray"} <= set(one["report"]["versions"])
    assert (True, False) == (one["report"]["token"], one["report"]["tls"])
    assert abs(one["clock_seconds"]) < 1
    assert "embedded" == one["report"]["pipelines"]["shapes-diffusion"]["place"]
    assert (
        "all are of one class: the same seed gives the same bits" == found["findings"][-1]["says"]
    )


def test_without_a_cluster(root: Root) -> None:
    """Where no cluster is set, or none can be reached, that is said with what to do."""
    none = fluxdrop("doctor", "--cluster", "--root", root.path)
    gone = fluxdrop("doctor", "--cluster", "--root", root.path, cluster="127.0.0.1:9")

    assert (2, 1) == (none.returncode, gone.returncode)
    assert 'Set cluster = "auto" in fluxdrop.toml' in none.stderr
    assert "The Ray cluster at 127.0.0.1:9 cannot be reached" in " ".join(gone.stdout.split())


def host(name: str, **changes: object) -> ExaminedHost:
    """A host without a fault, but for *changes*."""
    facts = HostFacts(version=__version__, gpu="cpu", host_class="a class")
    report = HostReport(
        versions={"fluxdrop": __version__},
        disk="/cache",
        free_bytes=10**11,
        token=True,
        tls=False,
        pipelines={"sdxl": PipelineReport(digest="ab" * 32, place="station", size=7 * 10**9)},
    )
    found = ExaminedHost(
        name=name, address="192.0.2.1", gpus=0, facts=facts, report=report, clock_seconds=0.1,
        picture=PictureReport(sha256="c" * 64, seconds=1.0),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def said(*found: ExaminedHost) -> dict[str, list[str]]:
    """What is said of each host or thing that is not as it should be."""
    told: dict[str, list[str]] = {}
    examined = Examination(hosts=list(found), digests={"sdxl": "ab" * 32})
    for finding in doctor.findings(examined):
        if finding.verdict != "ok":
            told.setdefault(finding.check, []).append(finding.says)
    return told


def test_faults() -> None:
    """Each fault is told of its host: another version, no token, a full disk, a wrong clock, another pipeline, other
    bytes than another host of the same class; a host without a fault has none."""
    good = host("good")
    assert good.report is not None
    report = msgspec.structs.replace(
        good.report,
        token=False,
        free_bytes=10**6,
        pipelines={"sdxl": PipelineReport(digest="ef" * 32, place="station")},
    )
    told = said(
        good,
        host("old", facts=HostFacts(version="0.0.1"), report=None, picture=None),
        host("odd", report=report, clock_seconds=-9.0, picture=PictureReport(sha256="d" * 64)),
        host("gone", problem="It did not answer within 60 s", facts=None, picture=None),
    )

    assert {"old", "odd", "gone"} == set(told)
    assert [f"fluxdrop 0.0.1, and this station has {__version__}: it is not used"] == told["old"]
    assert ["It did not answer within 60 s"] == told["gone"]
    assert [
        "pipeline sdxl: it is efefefefefef there, and abababababab here",
        "asks for no token: whoever reaches it can run code there",
        "0.0 GB free in /cache",
        "its clock is 9.00 s behind this one",
        "it made other bytes than good, which is of the same class",
    ] == told["odd"]


def test_texts_of_a_host() -> None:
    """What a host says of itself is cut to what can be shown, and cannot write on a terminal."""
    facts = HostFacts(version="1\x1b[2J", gpu="x" * 10_000, missing={"sdxl": "no\u202efile"})

    told = decoded_facts(msgspec.json.encode(facts))

    assert "1\N{REPLACEMENT CHARACTER}[2J" == told.version
    assert 400 == len(told.gpu)
    assert {"sdxl": "no\N{REPLACEMENT CHARACTER}file"} == told.missing


def test_no_hosts_and_hostile_names() -> None:
    """A cluster without hosts is a fault; a name cannot write on the terminal."""
    assert "it has no host but the station, which has no GPU" == said()["cluster"][0]
    assert ["x\N{REPLACEMENT CHARACTER}[2J"] == list(said(host("x\x1b[2J", clock_seconds=5.0)))
