"""The settings of fluxdrop: what there is (`settings`, `tables`), and what applies (`reading`)."""

from fluxdrop.config.reading import FILE, PREFIX, Found, choose_model, load, sources
from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import HooksTable, PipelineTable

__all__ = [
    "FILE",
    "PREFIX",
    "Found",
    "HooksTable",
    "PipelineTable",
    "Settings",
    "choose_model",
    "load",
    "sources",
]
