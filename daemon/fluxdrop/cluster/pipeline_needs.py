"""What runs of pipelines need on a host, as the station says it; `fluxdrop.cluster.host_pipelines` finds it there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fluxdrop.cluster.pipeline_digest import DigestMemory, Kind, Manifest, manifest_of, sketch_of
from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import sources
from fluxdrop.hub import HUB_ID
from fluxdrop.provision.find import data_dir
from fluxdrop.resources import expanded


class Embedded(msgspec.Struct, frozen=True, tag="embedded"):
    """A pipeline that comes with fluxdrop, which is of one version on all hosts."""

    name: str


class OnHub(msgspec.Struct, frozen=True, tag="hub"):
    """A pipeline on the Hugging Face hub, of one commit."""

    repository: str
    commit: str


class Content(msgspec.Struct, frozen=True, tag="content"):
    """A folder or file of the station."""

    manifest: Manifest


Need = Embedded | OnHub | Content


class RunNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs."""

    source: Need
    """The pipeline."""
    config: Need | None = None
    """The configuration of a pipeline that is a single file, where one is named."""
    loras: tuple[Manifest, ...] = ()
    """The LoRA files, in the order of the run's."""


def outline_of(table: PipelineTable) -> Need | None:
    """Return what the pipeline *table* needs as far as that is known without reading its files or asking a hub.

    A content's manifest is a `sketch_of` it, a hub's commit is empty. None is a pipeline that is missing on the
    station or cannot be read, which fails the prompts that name it.
    """
    if table.source in sources.embedded():
        return Embedded(table.source)
    path = expanded(table.source)
    try:
        if path.is_dir():
            return Content(sketch_of("pipeline", path.resolve()))
        if path.is_file():
            return Content(sketch_of("file", path))
    except (FluxdropError, OSError):
        return None
    match = HUB_ID.fullmatch(table.source)
    return OnHub(match["id"], "") if match else None


class Offers:
    """What a station has: the needs of its runs, and where their files are. One thread may use it.

    Args:
        memory: The digests of files that did not change; those kept in this user's data folder by default.
    """

    def __init__(self, memory: DigestMemory | None = None) -> None:
        self._memory = memory or DigestMemory(data_dir() / "digests.json")
        self._hub: dict[tuple[str, str | None], OnHub] = {}
        self.paths: dict[str, tuple[Manifest, Path]] = {}
        """The contents that were named in needs, with their folders or files, by their digests."""

    def of_run(self, table: PipelineTable, loras: Sequence[str]) -> RunNeeds:
        """Return what a run needs with the pipeline *table* and the files *loras*.

        The first time, all files are read; a hub is asked for the commit.

        Raises:
            FluxdropError: Kind ``pipeline``, when a pipeline or LoRA is missing or may not be loaded.
        """
        source = self._need(table.source, table.revision)
        is_file = isinstance(source, Content) and source.manifest.kind == "file"
        config = self._need(table.config, None) if is_file and table.config else None
        files = tuple(self.content("file", Path(file)) for file in loras)
        return RunNeeds(source=source, config=config, loras=files)

    def content(self, kind: Kind, path: Path) -> Manifest:
        """Return what *path* consists of, and offer it.

        Raises:
            FluxdropError: As `manifest_of`.
        """
        manifest = manifest_of(kind, path, self._memory)
        self.paths[manifest.digest] = (manifest, path)
        return manifest

    def _need(self, name: str, revision: str | None) -> Need:
        if name in sources.embedded():
            return Embedded(name)
        path = expanded(name)
        try:
            is_here = path.exists()
        except OSError as error:
            raise FluxdropError(
                f"{path} cannot be read: {error.strerror}", kind="pipeline"
            ) from error
        if is_here:
            # Refuses pickles and what is no pipeline, as on this machine.
            sources.find(name)
            is_file = path.is_file()
            return Content(
                self.content("file" if is_file else "pipeline", path if is_file else path.resolve())
            )
        key = (name, revision)
        if key not in self._hub:
            found = sources.find(name, revision)
            if found.revision is None:
                raise FluxdropError(f"The hub names no commit of {name}", kind="pipeline")
            self._hub[key] = OnHub(found.location, found.revision)
        return self._hub[key]
