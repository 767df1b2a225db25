"""What a run of a pipeline needs on a host, and where the host finds it.

A station says what each run needs (`Offers`). A host takes the same content from a folder of its own, from its
cache, from the station, or from the Hugging Face hub (`HostPipelines`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from fluxdrop.cluster.pipeline_cache import HostUnfit, Pieces, PipelineCache
from fluxdrop.cluster.pipeline_digest import DigestMemory, Kind, Manifest, has_sizes, manifest_of
from fluxdrop.config import HostSettings, PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import sources
from fluxdrop.generate.messages import Load
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
        if path.exists():
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


PiecesOf = Callable[[Manifest], Pieces]
"""Returns what gives a content's pieces from the station."""


class HostPipelines:
    """Finds on this host what runs need.

    Args:
        settings: This host's.
        wait_hook: As for `PipelineCache`.

    Raises:
        HostUnfit: The cache cannot be used.
    """

    def __init__(
        self, settings: HostSettings, wait_hook: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        folder = expanded(settings.cache) if settings.cache else data_dir() / "cluster-cache"
        self._cache = PipelineCache(folder, settings.cache_max_bytes, wait_hook)

    @contextmanager
    def holding(
        self, load: Load, needs: RunNeeds, pieces_of: PiecesOf
    ) -> Iterator[tuple[Load, list[Path]]]:
        """Yield the order to load the pipeline as this host is to do, and the LoRA files.

        They stay in place until the end of the ``with`` statement.

        Raises:
            HostUnfit: This host cannot have one of them.
            Exception: What *pieces_of* or the wait hook raises.
        """
        with ExitStack() as held:

            def found(need: Need) -> tuple[str, str | None]:
                match need:
                    case Embedded(name):
                        return name, None
                    case OnHub(repository, commit):
                        return self._on_hub(repository), commit
                    case Content(manifest):
                        return str(held.enter_context(self.content(manifest, pieces_of))), None

            source, revision = found(needs.source)
            config = None
            if needs.config is not None:
                name, commit = found(needs.config)
                config = name if commit is None else f"{name}@{commit}"
            loras = [held.enter_context(self.content(lora, pieces_of)) for lora in needs.loras]
            table = msgspec.structs.replace(
                self._settings.table(load.name, load.table),
                source=source,
                revision=revision,
                config=config,
            )
            yield msgspec.structs.replace(load, table=table), loras

    @contextmanager
    def content(self, manifest: Manifest, pieces_of: PiecesOf) -> Iterator[Path]:
        """Yield the path of a content on this host; otherwise as `holding`."""
        for folder in map(expanded, self._settings.folders):
            for path in (folder, folder / manifest.name):
                if self._is_same(path, manifest):
                    yield path
                    return
        with self._cache.holding(manifest, pieces_of(manifest)) as path:
            yield path

    def _is_same(self, path: Path, manifest: Manifest) -> bool:
        """Return whether *path* has the content *manifest*; only then, and the first time, all of it is read."""
        # Results name a pipeline as its folder is called.
        with suppress(OSError, FluxdropError):
            return (
                path.resolve().name == path.name == manifest.name
                and has_sizes(path, manifest)
                and manifest_of(manifest.kind, path, self._cache.memory) == manifest
            )
        return False

    def _on_hub(self, repository: str) -> str:
        if not self._settings.hub:
            raise HostUnfit(
                f"The pipeline {repository} is on the Hugging Face hub, which this host may not use",
                hint="Set hub = true in its host.toml, or give the station the pipeline as a folder.",
            )
        return repository
