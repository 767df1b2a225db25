"""Which pipeline of a station a prompt file means."""

from __future__ import annotations

from fluxdrop.config import PipelineTable, Settings
from fluxdrop.generate import sources
from fluxdrop.resources import expanded


def choose(settings: Settings, asked: str | None) -> tuple[str, PipelineTable, list[str]]:
    """The pipeline's name here, what is configured of it, and warnings.

    *asked* is the ``Model`` of a prompt file. Anyone may drop a file, so it chooses among what this
    station has, never a folder or hub id of its own.
    """
    default = settings.pipeline
    if default not in settings.pipelines:
        default = _short(default)
    stations = {name: PipelineTable(source=name) for name in sources.embedded()}
    stations |= {default: PipelineTable(source=settings.pipeline)} | settings.pipelines
    # A picture that another station made of the same source names the source.
    names = {_short(table.source): name for name, table in stations.items()}
    names |= {settings.pipeline: default} | {name: name for name in stations}
    if asked is None or asked in names:
        name = default if asked is None else names[asked]
        return name, stations[name], []
    warning = f"Model {asked} is not a pipeline of this station; {default} was used."
    return default, stations[default], [warning]


def _short(source: str) -> str:
    """A folder's or file's name; a hub id without its revision; an embedded name as it is."""
    path = expanded(source)
    if path.is_dir():
        return path.resolve().name
    if path.suffix == ".safetensors":
        return path.stem
    return source.partition("@")[0]
