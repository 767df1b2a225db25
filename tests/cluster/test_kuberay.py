"""examples/cluster/kuberay.yaml agrees with what starts Ray. (The CRD of KubeRay is not in this repository.)"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluxdrop.cluster import starting
from fluxdrop.cluster.starting import FIRST_PORT, FOLDER, TOKEN, Member, connecting
from fluxdrop.config.host import HOST_FILE

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    """What the file describes, by kind."""
    text = (PROJECT / "examples" / "cluster" / "kuberay.yaml").read_text()
    return {resource["kind"]: resource for resource in yaml.safe_load_all(text)}


def pods(resources: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod of the head, and that of the hosts."""
    spec = resources["RayCluster"]["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    # KubeRay is not to put a command of its own in place of ours.
    for group in groups:
        assert (
            "true" == group["template"]["metadata"]["annotations"]["ray.io/overwrite-container-cmd"]
        )
    return [group["template"]["spec"] for group in groups]


def test_commands_and_ports(resources: dict[str, Any]) -> None:
    """Ray is started by the module that has its ports, without a dashboard; KubeRay and its probes know the ports."""
    head, worker = pods(resources)
    module = ["python3", "-P", "-m", starting.__name__]
    group = resources["RayCluster"]["spec"]["headGroupSpec"]
    node_manager = next(port for port in starting.PORTS if port.option == "--node-manager-port")

    assert [*module, "--head"] == head["containers"][0]["command"]
    assert [*module, "--station", "$(FQ_RAY_IP)"] == worker["containers"][0]["command"]
    assert "--include-dashboard=False" in Member().command()
    assert {"port": str(FIRST_PORT)} == group["rayStartParams"]
    assert [FIRST_PORT] == [one["containerPort"] for one in head["containers"][0]["ports"]]
    assert FIRST_PORT == head["containers"][0]["livenessProbe"]["tcpSocket"]["port"]
    assert node_manager.number == worker["containers"][0]["livenessProbe"]["tcpSocket"]["port"]


def test_token(resources: dict[str, Any]) -> None:
    """Every container has the token, of a secret, where it is looked for, and asks for it; nobody else can read it."""
    needed = set(connecting(TOKEN, None).items()) - {("RAY_USAGE_STATS_ENABLED", "0")}
    for pod in pods(resources):
        volume = next(one["projected"] for one in pod["volumes"] if "projected" in one)
        files = [
            item["path"]
            for one in volume["sources"]
            for item in one.get("secret", {}).get("items", [])
        ]
        assert [TOKEN.name] == files
        assert 0 == volume["defaultMode"] & 0o007
        for container in pod["containers"]:
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {str(TOKEN.parent), str(FOLDER), "/dev/shm"} <= mounts
            assert needed <= {(one["name"], one.get("value")) for one in container["env"]}
    assert HOST_FILE.parent == TOKEN.parent
    assert {HOST_FILE.name} == set(resources["ConfigMap"]["data"])


def test_station(resources: dict[str, Any]) -> None:
    """The station is beside the head, uses its cluster, and serves a folder of its own on the volume, which nobody else
    can write to."""
    head, _ = pods(resources)
    _, station = head["containers"]
    environ = {one["name"]: one.get("value") for one in station["env"]}

    assert ["run"] == station["args"]
    assert f"$(POD_IP):{FIRST_PORT}" == environ["FLUXDROP_CLUSTER"]
    assert head["initContainers"][0]["args"] == ["init", environ["FLUXDROP_ROOT"]]
    assert head["shareProcessNamespace"]


def test_versions(resources: dict[str, Any]) -> None:
    """Ray's version is one that fluxdrop is made for; the settings of the hosts are read."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (ray,) = project["optional-dependencies"]["cluster"]
    low, high = re.findall(r"(\d+\.\d+)", ray)
    version = resources["RayCluster"]["spec"]["rayVersion"]

    assert low == version.rpartition(".")[0]
    assert high != low
    assert {"cache"} == set(tomllib.loads(resources["ConfigMap"]["data"][HOST_FILE.name]))
