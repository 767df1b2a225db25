"""What runs need, as the station says it, and where a host finds it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxdrop.cluster.host_pipelines import HostPipelines
from fluxdrop.cluster.pipeline_cache import HostUnfit, Pieces
from fluxdrop.cluster.pipeline_digest import DigestMemory, Manifest
from fluxdrop.cluster.pipeline_needs import Content, Embedded, Offers, RunNeeds, outline_of
from fluxdrop.config import HostSettings, PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.messages import Load
from fluxdrop.resources import models_folder
from support.hub_server import COMMIT, serving_hub

EMBEDDED = models_folder() / "shapes-diffusion"


class Station:
    """A station's offers; counts the bytes that hosts got from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.offers = Offers(DigestMemory(folder / "digests.json"))
        self.given = 0

    def __call__(self, manifest: Manifest) -> Pieces:
        def pieces(path: str, offset: int) -> Iterator[bytes]:
            source = self.offers.paths[manifest.digest][1]
            data = (source.parent / path).read_bytes()[offset:]
            self.given += len(data)
            yield data

        return pieces

    def pipeline(self, name: str = "shapes") -> Path:
        return shutil.copytree(EMBEDDED, self.folder / name)

    def file(self, name: str) -> Path:
        path = self.folder / f"{name}.safetensors"
        path.write_bytes(name.encode() * 100)
        return path


@pytest.fixture
def station(tmp_path: Path) -> Station:
    (tmp_path / "station").mkdir()
    return Station(tmp_path / "station")


def host(tmp_path: Path, **settings: object) -> HostPipelines:
    return HostPipelines(HostSettings(cache=str(tmp_path / "cache"), **settings))  # type: ignore[arg-type]


def load(source: object, **table: object) -> Load:
    return Load(name="mine", table=PipelineTable(source=str(source), **table))  # type: ignore[arg-type]


def test_what_is_embedded_needs_nothing(station: Station, tmp_path: Path) -> None:
    """fluxdrop is of one version on all hosts, and so is the pipeline that comes with it."""
    wanted = load("shapes-diffusion", steps=4)
    needs = station.offers.of_run(wanted.table, [])
    assert needs == RunNeeds(source=Embedded("shapes-diffusion"))
    with host(tmp_path).holding(wanted, needs, station) as held:
        assert held == (wanted, [])


def test_a_folder_and_loras_come_from_the_station(station: Station, tmp_path: Path) -> None:
    """The host's order names its own files, which have the station's names and bytes."""
    wanted = load(station.pipeline(), width=64)
    lora = station.file("style")
    needs = station.offers.of_run(wanted.table, [str(lora)])
    with host(tmp_path, device="cpu").holding(wanted, needs, station) as (order, loras):
        path = Path(order.table.source)
        assert path.is_relative_to(tmp_path / "cache")
        index = path / "model_index.json"
        assert index.read_bytes() == (EMBEDDED / index.name).read_bytes()
        assert (path.name, loras[0].name) == ("shapes", "style.safetensors")
        assert loras[0].read_bytes() == lora.read_bytes()
        assert (order.name, order.table.width, order.table.device) == ("mine", 64, "cpu")


def test_a_single_file_comes_with_its_configuration(station: Station, tmp_path: Path) -> None:
    """The folder that `config` names comes too; an embedded one need not."""
    file = station.file("checkpoint")
    for config in (str(station.pipeline("config")), "shapes-diffusion"):
        wanted = load(file, config=config)
        needs = station.offers.of_run(wanted.table, [])
        with host(tmp_path).holding(wanted, needs, station) as (order, _loras):
            assert Path(order.table.source).read_bytes() == file.read_bytes()
            assert order.table.config is not None
            assert Path(order.table.config).name == Path(config).name


@pytest.mark.parametrize("is_parent", [True, False])
def test_the_same_content_in_a_folder_of_the_host_is_used(
    station: Station, tmp_path: Path, is_parent: bool
) -> None:
    """A pipeline in one of the host's folders, or that itself, is taken if its digest is the station's."""
    wanted = load(station.pipeline())
    needs = station.offers.of_run(wanted.table, [])
    own = shutil.copytree(EMBEDDED, tmp_path / "nfs" / "shapes")
    folder = own.parent if is_parent else own
    one = host(tmp_path, folders=[str(folder)])
    with one.holding(wanted, needs, station) as (order, _loras):
        assert order.table.source == str(own)
    assert station.given == 0


def test_another_content_of_the_same_name_is_not_used(station: Station, tmp_path: Path) -> None:
    """A byte that differs, in a file of the same size, sends the host to the station."""
    wanted = load(station.pipeline())
    needs = station.offers.of_run(wanted.table, [])
    own = shutil.copytree(EMBEDDED, tmp_path / "nfs" / "shapes")
    config = own / "unet" / "config.json"
    config.write_bytes(config.read_bytes()[:-2] + b" }")
    one = host(tmp_path, folders=[str(own.parent)])
    with one.holding(wanted, needs, station) as (order, _loras):
        assert Path(order.table.source).is_relative_to(tmp_path / "cache")


def test_a_pipeline_that_changes_at_the_station_is_another(
    station: Station, tmp_path: Path
) -> None:
    """The needs are told anew for each run, so hosts never go on with an earlier version."""
    folder = station.pipeline()
    table = load(folder).table
    before = station.offers.of_run(table, [])
    with (folder / "pipeline.toml").open("a") as file:
        file.write("\n")
    after = station.offers.of_run(table, [])
    assert isinstance(before.source, Content)
    assert isinstance(after.source, Content)
    assert before.source.manifest.digest != after.source.manifest.digest


def test_a_missing_pipeline_is_refused_at_the_station(station: Station) -> None:
    """A folder that is not there, and a LoRA that went since, are errors of the job."""
    with pytest.raises(FluxdropError, match="There is no pipeline") as refused:
        station.offers.of_run(PipelineTable(source="/nowhere/sdxl"), [])
    assert refused.value.kind == "pipeline"
    with pytest.raises(FluxdropError, match=r"gone\.safetensors cannot be read"):
        station.offers.of_run(
            PipelineTable(source="shapes-diffusion"), ["/nowhere/gone.safetensors"]
        )


@pytest.mark.slow
def test_a_hub_pipeline_is_loaded_where_the_host_allows_it(
    station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The station asks the hub for the commit once; a host without `hub = true` is unfit, and says what to do."""
    with serving_hub(EMBEDDED, "owner/shapes") as (address, _fetched):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", address, raising=False)
        wanted = load("owner/shapes")
        needs = Offers(DigestMemory(tmp_path / "d")).of_run(wanted.table, [])
    with (
        pytest.raises(HostUnfit, match=r"owner/shapes is on the Hugging Face hub.*hub = true"),
        host(tmp_path).holding(wanted, needs, station),
    ):
        pass
    with host(tmp_path, hub=True).holding(wanted, needs, station) as (order, _loras):
        assert (order.table.source, order.table.revision) == ("owner/shapes", COMMIT)


def test_unreadable(tmp_path: Path) -> None:
    """What cannot even be looked for fails the prompts that name it, and not the broker or the other pipelines."""
    table = PipelineTable(source=f"{tmp_path}/{300 * 'a'}")
    assert outline_of(table) is None
    with pytest.raises(FluxdropError, match="cannot be read: File name too long"):
        Offers(DigestMemory(tmp_path / "digests")).of_run(table, [])
