"""The settings: what there is (`settings`, `tables`), what applies (`reading`), and to which files (`folders`).

Those of a GPU host of a cluster are in `host`.
"""

from fluxdrop.config.folders import folder_of, table_of
from fluxdrop.config.host import HostSettings, host_file, read_host_settings
from fluxdrop.config.reading import FILE, PREFIX, Found, choose_model, load, sources
from fluxdrop.config.settings import Settings
from fluxdrop.config.tables import FolderTable, HooksTable, PipelineTable

__all__ = [
    "FILE",
    "PREFIX",
    "FolderTable",
    "Found",
    "HooksTable",
    "HostSettings",
    "PipelineTable",
    "Settings",
    "choose_model",
    "folder_of",
    "host_file",
    "load",
    "read_host_settings",
    "sources",
    "table_of",
]
