"""Pipelines, LoRAs and models on the hosts of a real cluster: they come from the station, and give its bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hosts
from fluxdrop.files.layout import Root
from fluxdrop.resources import models_folder
from hosts import Cluster, Host
from support.daemons import PATIENCE, SAMPLES, degraded_reasons, results
from support.remote_hands import remote_hands

pytestmark = pytest.mark.slow

EMBEDDED = models_folder() / "shapes-diffusion"
OWN = Path("/mnt")
"""A filesystem of each host's own, with its settings and its cache."""
_MOUNT = f"mount -t tmpfs -o size=128m,mode=755 tmpfs {OWN} && touch {OWN}/host.toml"
_CONTENTS = f"{OWN}/data/cluster-cache/contents"

# Makes the picture of a prompt on this machine, and tells its bytes.
LOCAL = """
import sys
from fluxdrop.config import PipelineTable, Settings
from fluxdrop.generate.generator import GenerationOrder, Generator
from fluxdrop.generate.parameters import PromptParameters

pipeline, loras, prompt = sys.argv[1:]
settings = Settings(pipeline="mine", pipelines={"mine": PipelineTable(source=pipeline)}, loras=loras)
order = GenerationOrder(PromptParameters(prompt=prompt, seed=1, steps=2))
print(Generator(settings).generate([order])[0].png.hex())
"""

# Predicts random pictures by an engine, on the hosts and on this machine, until the file is there.
PREDICT = """
import json, sys, time
import numpy as np
from pathlib import Path
from fluxdrop.cluster.cluster_engine import ClusterEngine, PredictBrokerProcess
from fluxdrop.config import Settings
from fluxdrop.predict.bundle import load_bundle
from fluxdrop.predict.choose_engine import open_engine

address, end = sys.argv[1:]
settings = Settings(cluster=address, engine="onnxruntime", predict_on="cluster")
bundle = load_bundle("round-or-angular")
local = open_engine(settings, bundle)
remote = ClusterEngine(PredictBrokerProcess(address), settings, bundle)
numbers = np.random.default_rng(0)
while len(remote.hosts) < 2:
    time.sleep(0.2)
    remote.check_health()
while not Path(end).exists():
    batch = numbers.random((9, *bundle.spec.input.shape[1:]), dtype=np.float32)
    same = bool(np.array_equal(remote.predict(batch), local.predict(batch)))
    print(json.dumps({"engine": remote.info.engine, "same": same}), flush=True)
remote.close()
local.close()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A station and two hosts, each with a disk of its own for its settings and its cache."""
    hosts.needed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUXDROP_DATA_DIR", f"{OWN}/data")
        with hosts.network(tmp_path_factory.mktemp("cluster"), 2) as made:
            for machine in made.machines.values():
                machine.run("sh", "-c", _MOUNT)
                with pytest.MonkeyPatch.context() as own:
                    if machine is not made.station:
                        own.setenv("FLUXDROP_HOST_CONFIG", f"{OWN}/host.toml")
                    machine.start_ray()
            for machine in made.machines.values():
                machine.wait_for_ray()
            yield made


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that does not come with fluxdrop."""
    return shutil.copytree(EMBEDDED, tmp_path_factory.mktemp("pipelines") / "painter")


def cached(host: Host) -> list[str]:
    """The names of the contents in a host's cache."""
    listed = host.run("find", _CONTENTS, "-mindepth", "2", "-maxdepth", "2").stdout.split()
    return sorted(Path(path).name for path in listed)


def settings(pipeline: Path, loras: Path | str = "") -> dict[str, object]:
    return {
        "cluster": hosts.address(),
        "pipeline": "mine",
        "pipelines": {"mine": {"source": str(pipeline)}},
        "loras": str(loras),
    }


def test_a_pipeline_and_a_lora_come_to_the_hosts(
    cluster: Cluster, pipeline: Path, tmp_path: Path
) -> None:
    """Both hosts get what the station has, and make pictures of the very bytes that the station makes. A run on a host
    whose disk is full is made by another one."""
    script = "from support.tiny_pipelines import lora; import pathlib, sys; lora(pathlib.Path(sys.argv[1]))"
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script, tmp_path], env=os.environ | path, check=True)
    prompt = "a red circle <lora:paint:0.5>"
    with remote_hands(cluster.station, tmp_path, **settings(pipeline, tmp_path)) as hands:
        hands.wait_for_room(2)
        for run in ("one", "two"):
            hands.begin(run, prompt, steps=2)
        made = [hands.outcome(run) for run in ("one", "two")]

        # Another LoRA does not fit onto the disk of a host that had room when it was asked.
        shutil.copy(tmp_path / "paint.safetensors", tmp_path / "brush.safetensors")
        full = cluster.hosts[0]
        full.run("sh", "-c", f"cat /dev/zero > {OWN}/full || true")
        hands.wait_for_room(2)
        for run in ("three", "four"):
            hands.begin(run, f"{prompt} <lora:brush:0.5>", steps=2)
        assert ["host2", "host2"] == [hands.outcome(run)["host"] for run in ("three", "four")]
        hands.wait(lambda: hands.host("host1")["state"] == "unused", "host1 is unused")
        assert "disk" in hands.host("host1")["reason"] or "full" in hands.host("host1")["reason"]
        full.run("rm", f"{OWN}/full")
    local = cluster.station.run(sys.executable, "-c", LOCAL, pipeline, tmp_path, prompt)
    assert [one["png"] for one in made] == 2 * [local.stdout.strip()]
    assert {one["host"] for one in made} == {"host1", "host2"}
    for host in cluster.hosts:
        assert {"paint.safetensors", "painter"} <= set(cached(host))


def test_hosts_that_cannot_have_the_pipeline_are_not_used(
    cluster: Cluster, pipeline: Path, tmp_path: Path
) -> None:
    """A host whose cache is too small says so in status, one whose settings are wrong too, and others go on."""
    larger = shutil.copytree(pipeline, tmp_path / "larger")
    (larger / "vae" / "more.safetensors").write_bytes(bytes(1 << 20))
    one, two = cluster.hosts
    two.run("sh", "-c", f"echo cache_max_bytes = 1_000_000 > {OWN}/host.toml")
    with remote_hands(cluster.station, tmp_path, **settings(larger)) as hands:
        hands.wait(lambda: hands.host("host1").get("state") == "ready", "host1 is ready")
        hands.wait(lambda: "cache_max_bytes" in hands.host("host2").get("reason", ""), "reason")
        assert "unused" == hands.host("host2")["state"]
        assert 1 == hands.state["room"]
    one.run("sh", "-c", f"cat /dev/zero > {OWN}/full || true")
    two.run("sh", "-c", f"echo devise = 1 > {OWN}/host.toml")
    with remote_hands(cluster.station, tmp_path, **settings(larger)) as hands:
        hands.wait(lambda: "the disk of" in hands.host("host1").get("reason", ""), "reason")
        hands.wait(lambda: "key devise" in hands.host("host2").get("reason", ""), "reason")
        hands.wait(lambda: hands.state["outage"], "an outage")
    one.run("rm", f"{OWN}/full")
    two.run("sh", "-c", f"echo > {OWN}/host.toml")


class Predicting:
    """`PREDICT` on the station."""

    def __init__(self, cluster: Cluster, end: Path) -> None:
        self._end = end
        self.process = cluster.station.start(
            *(sys.executable, "-c", PREDICT, hosts.address(), end),
            env=cluster.station.credentials(),
            stdout=subprocess.PIPE,
        )

    def told(self) -> dict[str, Any]:
        """The next line of what it says."""
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if line.startswith(b"{"))
        told: dict[str, Any] = json.loads(line)
        return told

    def end(self) -> int:
        """End it, and return its exit code."""
        self._end.touch()
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


def test_the_hosts_predict_as_the_station(cluster: Cluster, tmp_path: Path) -> None:
    """Batches that are divided among two hosts have the outputs of the station to the last bit."""
    predicting = Predicting(cluster, tmp_path / "end")
    for _ in range(5):
        assert {"engine": "onnxruntime", "same": True} == predicting.told()
    assert 0 == predicting.end()
    assert all("round-or-angular" in cached(host) for host in cluster.hosts)


def test_a_lost_host_loses_no_prediction(cluster: Cluster, tmp_path: Path, root: Root) -> None:
    """What a killed host had is predicted by the other. When none is left, pictures wait, and `status` says why; they
    are predicted when a host is back."""
    one, two = cluster.hosts
    predicting = Predicting(cluster, tmp_path / "end")
    assert predicting.told()["same"]
    two.kill()
    for _ in range(50):
        assert predicting.told()["same"]
    assert 0 == predicting.end()

    on_cluster = {"cluster": hosts.address(), "predict_on": "cluster", "engine": "onnxruntime"}
    with cluster.station.daemon(root, **on_cluster) as daemon:
        shutil.copyfile(SAMPLES / "round_circle_01.png", root.inbox / "round.png")
        daemon.wait_for_ends(1)
        one.kill()
        shutil.copyfile(SAMPLES / "angular_star_01.png", root.inbox / "angular.png")
        daemon.wait_until(
            lambda: any("No host of the cluster" in one for one in degraded_reasons(root)),
            "an outage",
        )
        one.boot()
        one.run("sh", "-c", _MOUNT)
        one.start_ray()
        daemon.wait_for_ends(2)
    assert {"round", "angular"} == {result["top"][0]["label"] for result in results(root).values()}
