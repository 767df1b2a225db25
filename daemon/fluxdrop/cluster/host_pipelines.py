"""Where a host has the pipelines and LoRAs that a root names. This runs on the host."""

from __future__ import annotations

from fluxdrop.cluster.messages import RunOrder
from fluxdrop.config import PipelineTable
from fluxdrop.errors import FluxdropError
from fluxdrop.generate import sources
from fluxdrop.hub import HUB_ID
from fluxdrop.resources import expanded


def check(table: PipelineTable) -> None:
    """Check that this host has the pipeline of *table*. The hub is not asked for one that it may have.

    Raises:
        FluxdropError: Kind ``pipeline``: the host does not have it.
    """
    is_local = table.source in sources.embedded() or expanded(table.source).exists()
    if is_local or HUB_ID.fullmatch(table.source) is None:
        sources.find(table.source, table.revision)


def localise(order: RunOrder) -> RunOrder:
    """Return *order* with this host's files in place of the station's.

    Raises:
        FluxdropError: Kind ``pipeline``: the host does not have one of them.
    """
    check(order.load.table)
    for file, _weight in order.loras:
        if not expanded(file).is_file():
            raise FluxdropError(f"The LoRA {file} is not on this host.", kind="pipeline")
    return order
