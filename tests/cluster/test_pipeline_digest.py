"""What a pipeline, a LoRA and a model bundle consist of, and when a digest is computed again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from fluxdrop.cluster.pipeline_digest import (
    DigestMemory,
    Kind,
    Manifest,
    ManifestFile,
    check,
    manifest_of,
)
from fluxdrop.errors import FluxdropError
from fluxdrop.resources import models_folder

EMBEDDED = models_folder() / "shapes-diffusion"


@pytest.fixture
def memory(tmp_path: Path) -> DigestMemory:
    return DigestMemory(tmp_path / "digests.json")


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A copy of the embedded pipeline."""
    return shutil.copytree(EMBEDDED, tmp_path / "pipes" / "shapes")


def digest(path: Path, memory: DigestMemory, kind: Kind = "pipeline") -> str:
    return manifest_of(kind, path, memory).digest


def test_the_manifest_has_all_that_loading_reads_and_nothing_else(
    pipeline: Path, memory: DigestMemory
) -> None:
    """A model card, pickles and code beside the components are no part of a pipeline."""
    before = manifest_of("pipeline", pipeline, memory)
    assert {file.path for file in before.files} == {
        f"shapes/{path.relative_to(EMBEDDED).as_posix()}"
        for path in EMBEDDED.rglob("*")
        if path.is_file() and path.name != "MODEL_CARD.md"
    }
    for name in (
        "README.md",
        "unet/weights.bin",
        "unet/custom.py",
        ".cache/x",
        "vae/.x",
        "other/x",
    ):
        path = pipeline / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"new")
    assert manifest_of("pipeline", pipeline, memory) == before


@pytest.mark.parametrize("name", ["unet/config.json", "pipeline.toml", "vae/added.json"])
def test_a_change_of_what_loading_reads_changes_the_digest(
    pipeline: Path, memory: DigestMemory, name: str
) -> None:
    """A file that changed, and one that was added, make another digest."""
    before = digest(pipeline, memory)
    with (pipeline / name).open("a") as file:
        file.write(" ")
    assert digest(pipeline, memory) != before


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, memory: DigestMemory) -> None:
    """The digest that is kept is used as long as size and times are the same, also by another process."""
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"weights")
    known = lora.stat()
    memory.add(lora, known, "remembered")
    memory.save()
    again = DigestMemory(tmp_path / "digests.json")
    assert again.sha256(lora) == (7, "remembered")
    lora.write_bytes(b"changed")
    os.utime(lora, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert again.sha256(lora)[1] != "remembered"


def test_a_file_that_was_just_written_is_not_remembered(
    tmp_path: Path, memory: DigestMemory
) -> None:
    """Two changes within one tick of the filesystem's clock would have the same times."""
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"weights")
    memory.sha256(lora)
    memory.save()
    assert not (tmp_path / "digests.json").exists()


def test_a_lora_and_a_bundle_have_digests(tmp_path: Path, memory: DigestMemory) -> None:
    """A single file's digest has its name; a bundle's has model.toml, as that decides its answers."""
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"weights")
    assert [file.path for file in manifest_of("file", lora, memory).files] == [lora.name]
    bundle = shutil.copytree(models_folder() / "round-or-angular", tmp_path / "bundle")
    before = digest(bundle, memory, "bundle")
    with (bundle / "model.toml").open("a") as file:
        file.write("\n")
    assert digest(bundle, memory, "bundle") != before


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [("pipeline", "nowhere", "No such file"), ("file", "style.pt", "never loads")],
)
def test_what_cannot_be_sent_is_refused(
    tmp_path: Path, memory: DigestMemory, kind: Kind, name: str, says: str
) -> None:
    """A folder without an index and a pickle are refused with their names."""
    (tmp_path / "style.pt").write_bytes(b"pickle")
    with pytest.raises(FluxdropError, match=f"{name}.*{says}") as refused:
        manifest_of(kind, tmp_path / name, memory)
    assert refused.value.kind == "pipeline"


@pytest.mark.parametrize(
    "path",
    [
        "../up/model_index.json",
        "p/../../x.json",
        "/etc/x.json",
        "p//x.json",
        "p/./x.json",
        "p/.hidden/x.json",
        "p/a\0.json",
        "other/x.json",
        "p/unet/model.bin",
        "p/unet/model.PT",
        "p/pipeline.py",
        f"p/{'x' * 300}.json",
        "p",
        "",
    ],
)
def test_a_manifest_cannot_name_a_file_elsewhere_or_a_pickle(path: str) -> None:
    """Paths that leave the folder, hidden files, pickles and code are refused before anything is written."""
    good = ManifestFile("p/model_index.json", 1, "0" * 64)
    check(Manifest(kind="pipeline", files=(good,)))
    with pytest.raises(FluxdropError):
        check(Manifest(kind="pipeline", files=(good, msgspec.structs.replace(good, path=path))))


def test_a_manifest_survives_its_transport(pipeline: Path, memory: DigestMemory) -> None:
    """Encoded and decoded, a manifest has the same digest."""
    manifest = manifest_of("pipeline", pipeline, memory)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest
