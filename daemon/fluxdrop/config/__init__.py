"""The settings: what there is (`settings`, `tables`), what applies (`reading`), and to which files (`folders`)."""

from fluxdrop.config.folders import folder_of, table_of
from fluxdrop.config.reading import FILE, PREFIX, Found, choose_model, load, sources
from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import FolderTable, HooksTable, PipelineTable

__all__ = [
    "FILE",
    "PREFIX",
    "FolderTable",
    "Found",
    "HooksTable",
    "PipelineTable",
    "Settings",
    "choose_model",
    "folder_of",
    "load",
    "sources",
    "table_of",
]
