"""Bring contents from the station to a host in pieces, through Ray's object store.

Only the broker and the actors import this module: it imports Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fluxdrop.cluster.pipeline_cache import PIECE_BYTES, Pieces
from fluxdrop.cluster.pipeline_digest import Manifest
from fluxdrop.cluster.pipeline_needs import Offers, RunNeeds
from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError, Outage

# While one piece is hashed and written, the next one is on its way.
_AHEAD = 2
_PIECE_SECONDS = 60.0
_SERVED_AT_ONCE = 4


class StationLost(Outage):
    """The station, or the way to it, was lost while a content came."""


class PieceServer:
    """An actor on the station that reads pieces of the contents that were offered."""

    def __init__(self) -> None:
        self._offered: dict[str, Path] = {}

    def ping(self) -> None:
        """Do nothing."""

    def offer(self, manifest: bytes, source: str) -> None:
        """Let hosts have the content *manifest*, in JSON, whose folder or file is *source*."""
        content = msgspec.json.decode(manifest, type=Manifest)
        for file in content.files:
            self._offered[f"{content.digest}/{file.path}"] = Path(source).parent / file.path

    def piece(self, digest: str, path: str, offset: int, size: int) -> NDArray[np.uint8]:
        """Return up to *size* bytes from *offset* on of a file. Raise KeyError for one that was not offered."""
        with self._offered[f"{digest}/{path}"].open("rb") as file:
            file.seek(offset)
            return np.fromfile(file, dtype=np.uint8, count=size)


class StationContents:
    """What the station offers to hosts, with the actor that reads it. One thread at a time may use it."""

    def __init__(self) -> None:
        self._offers = Offers()
        self._offered: set[str] = set()
        self.server: Any = None
        """Ray's handle of the `PieceServer`; None until there is a content to offer."""

    def of_run(self, table: PipelineTable, loras: Sequence[str]) -> RunNeeds:
        """See `Offers.of_run`; the contents are offered when this returns.

        Raises:
            FluxdropError: As `Offers.of_run`, or kind ``cluster`` if Ray fails.
        """
        needs = self._offers.of_run(table, loras)
        self._offer()
        return needs

    def of_bundle(self, folder: Path) -> Manifest:
        """Return what the model bundle in *folder* consists of; otherwise as `of_run`."""
        manifest = self._offers.content("bundle", folder)
        self._offer()
        return manifest

    def _offer(self) -> None:
        try:
            if self.server is not None:
                try:
                    ray.get(self.server.ping.remote(), timeout=_PIECE_SECONDS)
                except RayError:
                    self.server = None
            if self.server is None and self._offers.paths:
                self.server, self._offered = _start_server(), set()
            for digest in self._offers.paths.keys() - self._offered:
                manifest, source = self._offers.paths[digest]
                content = msgspec.json.encode(manifest)
                ray.get(self.server.offer.remote(content, str(source)), timeout=_PIECE_SECONDS)
                self._offered.add(digest)
        except RayError as error:
            message = f"The station's files cannot be offered: {str(error).strip()}"
            raise FluxdropError(message, kind="cluster") from error


def _start_server() -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": _SERVED_AT_ONCE, "scheduling_strategy": here}
    return ray.remote(PieceServer).options(**options).remote()


def pieces_from(server: Any, manifest: Manifest, piece_bytes: int = PIECE_BYTES) -> Pieces:
    """Return what gives the pieces of *manifest* from *server*, which was offered it.

    It raises StationLost when the server does not answer.
    """
    sizes = {file.path: file.size for file in manifest.files}

    def pieces(path: str, offset: int) -> Iterator[memoryview]:
        starts = iter(range(offset, sizes[path], piece_bytes))
        coming: deque[Any] = deque()

        def ask() -> None:
            start = next(starts, None)
            if start is not None:
                coming.append(server.piece.remote(manifest.digest, path, start, piece_bytes))

        for _ in range(_AHEAD):
            ask()
        while coming:
            try:
                piece = ray.get(coming.popleft(), timeout=_PIECE_SECONDS)
            except RayError as error:
                what = str(error).strip().splitlines()[-1]
                raise StationLost(
                    f"{manifest.name} does not come from the station: {what}"
                ) from error
            ask()
            yield memoryview(piece)

    return pieces
