"""A host's cache: what is filled, resumed, verified, removed and refused."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxdrop.cluster.pipeline_cache import HostUnfit, PipelineCache
from fluxdrop.cluster.pipeline_digest import DigestMemory, Manifest, ManifestFile, manifest_of
from fluxdrop.errors import FluxdropError
from fluxdrop.resources import models_folder

PIECE = 1000


class Station:
    """Pieces of files below a folder, which counts the bytes that it gave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given = 0
        self.breaks_after: int | None = None

    def __call__(self, path: str, offset: int) -> Iterator[bytes]:
        data = (self.folder / path).read_bytes()
        for start in range(offset, len(data), PIECE):
            if self.breaks_after is not None and self.given >= self.breaks_after:
                raise RuntimeError("the cable was cut")
            piece = data[start : start + PIECE]
            self.given += len(piece)
            yield piece


def lora(station: Station, name: str, size: int = 5000) -> Manifest:
    """Write a LoRA file at the station, and return its manifest."""
    path = station.folder / f"{name}.safetensors"
    path.write_bytes(hashlib.shake_128(name.encode()).digest(size))
    return manifest_of("file", path, DigestMemory(station.folder / "digests.json"))


@pytest.fixture
def station(tmp_path: Path) -> Station:
    (tmp_path / "station").mkdir()
    return Station(tmp_path / "station")


@pytest.fixture
def cache(tmp_path: Path) -> PipelineCache:
    return PipelineCache(tmp_path / "cache", 20_000)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


def use(cache: PipelineCache, manifest: Manifest, station: Station) -> bytes:
    with cache.holding(manifest, station) as path:
        return path.read_bytes()


def test_a_pipeline_comes_once(tmp_path: Path, station: Station) -> None:
    """The folder in the cache has the station's digest, and is used again without a piece."""
    shutil.copytree(models_folder() / "shapes-diffusion", station.folder / "shapes")
    manifest = manifest_of("pipeline", station.folder / "shapes", DigestMemory(tmp_path / "d"))
    cache = PipelineCache(tmp_path / "cache", 100_000_000)
    with cache.holding(manifest, station) as path:
        assert path.name == "shapes"
        assert manifest_of("pipeline", path, DigestMemory(tmp_path / "d2")) == manifest
    given = station.given
    assert given == manifest.size
    with PipelineCache(tmp_path / "cache", 100_000_000).holding(manifest, station) as again:
        assert (again, station.given) == (path, given)


def test_an_interrupted_file_is_continued(
    cache: PipelineCache, station: Station, tmp_path: Path
) -> None:
    """After a cut, the bytes that had come are not asked for again, and nothing was in place meanwhile."""
    manifest = lora(station, "style")
    station.breaks_after = 3000
    with pytest.raises(RuntimeError), cache.holding(manifest, station):
        pass
    assert not list((tmp_path / "cache" / "contents").iterdir())
    station.breaks_after = None
    assert use(cache, manifest, station) == (station.folder / "style.safetensors").read_bytes()
    assert station.given == manifest.size


@pytest.mark.parametrize("kind", ["changed", "shorter", "longer"])
def test_what_is_not_as_the_manifest_says_is_never_in_place(
    cache: PipelineCache, station: Station, tmp_path: Path, kind: str
) -> None:
    """A file of another digest or length is refused and removed, and right bytes are taken later."""
    manifest = lora(station, "style")
    path = station.folder / "style.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {"changed": b"x" + whole[1:], "shorter": whole[:-1], "longer": whole + b"x"}[kind]
    )
    if kind != "longer":
        with (
            pytest.raises(HostUnfit, match=r"style.*did not come as it is"),
            cache.holding(manifest, station),
        ):
            pass
        assert files(tmp_path) == []
        path.write_bytes(whole)
    assert use(cache, manifest, station) == whole


def test_a_content_that_was_changed_in_the_cache_comes_anew(
    cache: PipelineCache, station: Station
) -> None:
    """Bytes that somebody changed on the host's disk are noticed before they are loaded."""
    manifest = lora(station, "style")
    with cache.holding(manifest, station) as path:
        whole = path.read_bytes()
        path.write_bytes(b"x" + whole[1:])
    assert use(cache, manifest, station) == whole
    assert station.given == 2 * manifest.size


def test_the_least_recently_used_content_is_removed(
    cache: PipelineCache, station: Station, tmp_path: Path
) -> None:
    """Four contents of 5,000 bytes fit into 20,000; for a fifth the one goes that was not used for longest."""
    manifests = [lora(station, name) for name in "abcd"]
    for manifest in manifests:
        use(cache, manifest, station)
    use(cache, manifests[0], station)
    use(cache, lora(station, "e"), station)
    assert [path.stem for path in sorted(files(tmp_path), key=lambda path: path.name)] == [*"acde"]


def test_a_content_in_use_is_not_removed(cache: PipelineCache, station: Station) -> None:
    """A content that fits only if those in use were removed makes the host unfit."""
    with cache.holding(lora(station, "a", 15_000), station) as path:
        with (
            pytest.raises(HostUnfit, match="what is in use fills the cache"),
            cache.holding(lora(station, "b", 10_000), station),
        ):
            pass
        assert path.exists()
    assert use(cache, lora(station, "b", 10_000), station)
    assert not path.exists()


def test_a_content_larger_than_the_cache_is_refused(cache: PipelineCache, station: Station) -> None:
    """Nothing is removed or asked for, and the reason has both sizes and the setting."""
    use(cache, lora(station, "a"), station)
    given = station.given
    huge = Manifest(kind="file", files=(ManifestFile("b.safetensors", 10**12, "0" * 64),))
    with pytest.raises(HostUnfit, match=r"1000\.0 GB.*0\.0 MB.*cache_max_bytes"):
        use(cache, huge, station)
    use(cache, lora(station, "a"), station)
    assert station.given == given


def test_a_content_that_the_disk_has_no_room_for_is_refused(
    station: Station, tmp_path: Path
) -> None:
    """The room is looked at before the first piece is asked for."""
    cache = PipelineCache(tmp_path / "cache", 10**18)
    huge = Manifest(kind="file", files=(ManifestFile("b.safetensors", 10**17, "0" * 64),))
    with pytest.raises(HostUnfit, match=r"the disk of .*cache has"):
        use(cache, huge, station)


def test_a_manifest_of_pickles_or_of_paths_elsewhere_is_refused(
    cache: PipelineCache, station: Station, tmp_path: Path
) -> None:
    """A host writes nothing of a manifest that names a file outside the cache."""
    for path in ("../../x.safetensors", "x.pt"):
        with pytest.raises(FluxdropError):
            use(cache, Manifest(kind="file", files=(ManifestFile(path, 1, "0" * 64),)), station)
    assert files(tmp_path) == []


def test_a_cache_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """What others may change between its check and its loading is not verified."""
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(HostUnfit, match="chmod go-w"):
        PipelineCache(tmp_path / "cache", 1)


def test_the_error_of_the_one_who_uses_a_content_stays_its_own(
    cache: PipelineCache, station: Station
) -> None:
    """An OSError of a generator is not taken for one of the cache."""
    with pytest.raises(BrokenPipeError), cache.holding(lora(station, "a"), station):
        raise BrokenPipeError


def _use_in_process(folder: Path, station: Station, manifest: Manifest, given: object) -> None:
    use(PipelineCache(folder / "cache", 20_000), manifest, station)
    given.put(station.given)  # type: ignore[attr-defined]


def test_two_processes_bring_a_content_once(station: Station, tmp_path: Path) -> None:
    """The second process waits for the first, and then uses what came."""
    manifest = lora(station, "a", 15_000)
    context = multiprocessing.get_context("spawn")
    given = context.SimpleQueue()
    processes = [
        context.Process(target=_use_in_process, args=(tmp_path, station, manifest, given))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        process.close()
    assert sorted(given.get() for _ in processes) == [0, manifest.size]
    given.close()


def test_what_stops_a_wait_stops_the_transfer(station: Station, tmp_path: Path) -> None:
    """The wait hook is called between pieces, so a cancelled job does not wait for the whole pipeline."""
    calls = threading.Semaphore(2)

    def hook() -> None:
        if not calls.acquire(blocking=False):
            raise KeyboardInterrupt

    cache = PipelineCache(tmp_path / "cache", 20_000, hook)
    with pytest.raises(KeyboardInterrupt):
        use(cache, lora(station, "a"), station)
    assert station.given == 3 * PIECE
