"""The settings of fluxdrop: what there is (`settings`, `tables`), and what applies (`reading`)."""

from fluxdrop.config.reading import FILE, PREFIX, Found, choose_model, load, sources
from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import PipelineTable

__all__ = [
    "FILE",
    "PREFIX",
    "Found",
    "PipelineTable",
    "Settings",
    "choose_model",
    "load",
    "sources",
]
