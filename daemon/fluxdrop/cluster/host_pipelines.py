"""Where a host finds what runs need: in a folder of its own, in its cache, at the station, or on the hub.

This runs on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from fluxdrop.cluster.pipeline_cache import HostUnfit, Pieces, PipelineCache
from fluxdrop.cluster.pipeline_digest import DigestMemory, Manifest, has_sizes, manifest_of
from fluxdrop.cluster.pipeline_needs import Content, Embedded, Need, OnHub, RunNeeds
from fluxdrop.config import HostSettings
from fluxdrop.errors import FluxdropError
from fluxdrop.generate.messages import Load
from fluxdrop.generate.pipeline_process import Limits
from fluxdrop.ownership import load_trusted_host
from fluxdrop.provision.find import data_dir
from fluxdrop.resources import expanded

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
        self.settings = settings
        folder = expanded(settings.cache) if settings.cache else data_dir() / "cluster-cache"
        self.graphs = folder / "graphs"
        """The folder for compiled models."""
        self._cache = PipelineCache(folder, settings.cache_max_bytes, wait_hook)

    @classmethod
    def of_this_host(cls, wait_hook: Callable[[], None] = lambda: None) -> HostPipelines:
        """Return those of this host's own settings.

        Raises:
            HostUnfit: The settings or the cache cannot be used.
        """
        try:
            return cls(load_trusted_host(), wait_hook)
        except HostUnfit:
            raise
        except FluxdropError as error:
            raise HostUnfit(error.message, hint=error.hint) from error

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
                self.settings.table(load.name, load.table),
                source=source,
                revision=revision,
                config=config,
            )
            yield msgspec.structs.replace(load, table=table), loras

    def limits(self, limits: Limits) -> Limits:
        """Return the *limits* of a station's processes, with this host's limit of memory."""
        return msgspec.structs.replace(
            limits, max_bytes=self.settings.generator_max_bytes or limits.max_bytes
        )

    @property
    def cache_folder(self) -> Path:
        """The folder of what came from stations."""
        return self._cache.folder

    @property
    def memory(self) -> DigestMemory:
        """The digests of files on this host."""
        return self._cache.memory

    def find(self, manifest: Manifest) -> Path | None:
        """Return where this host has a content; None if it would have to come from the station."""
        own = (path for path in self._own_places(manifest) if self._is_same(path, manifest))
        return next(own, None) or self._cache.find(manifest)

    def obstacle(self, need: Need) -> str:
        """Return why this host cannot have *need*, an `outline_of` a pipeline; empty if nothing is known against it."""
        match need:
            case OnHub(repository):
                return "" if self.settings.hub else str(_hub_refusal(repository))
            case Content(manifest) if not any(
                self._has_sizes(path, manifest) for path in self._own_places(manifest)
            ):
                return self._cache.obstacle(manifest)
        return ""

    @contextmanager
    def content(self, manifest: Manifest, pieces_of: PiecesOf) -> Iterator[Path]:
        """Yield the path of a content on this host; otherwise as `holding`."""
        for path in self._own_places(manifest):
            if self._is_same(path, manifest):
                yield path
                return
        with self._cache.holding(manifest, pieces_of(manifest)) as path:
            yield path

    def _own_places(self, manifest: Manifest) -> Iterator[Path]:
        """Yield where a content may be in the folders that this host's settings name."""
        for folder in map(expanded, self.settings.folders):
            yield from (folder, folder / manifest.name)

    def _is_same(self, path: Path, manifest: Manifest) -> bool:
        """Return whether *path* has the content *manifest*; only then, and the first time, all of it is read."""
        with suppress(FluxdropError):
            return (
                self._has_sizes(path, manifest)
                and manifest_of(manifest.kind, path, self._cache.memory) == manifest
            )
        return False

    def _has_sizes(self, path: Path, manifest: Manifest) -> bool:
        # Results name a pipeline as its folder is called.
        is_named = path.resolve().name == path.name == manifest.name
        return is_named and has_sizes(path, manifest)

    def _on_hub(self, repository: str) -> str:
        if not self.settings.hub:
            raise _hub_refusal(repository)
        return repository


def _hub_refusal(repository: str) -> HostUnfit:
    return HostUnfit(
        f"The pipeline {repository} is on the Hugging Face hub, which this host may not use",
        hint="Set hub = true in its host.toml, or give the station the pipeline as a folder.",
    )
