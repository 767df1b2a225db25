"""Choose the pipeline that a prompt file names, among the configured ones."""

from __future__ import annotations

from fluxdrop.config import PipelineTable, Settings
from fluxdrop.generate import sources
from fluxdrop.resources import expanded


def choose(settings: Settings, asked: str | None) -> tuple[str, PipelineTable, list[str]]:
    """Choose the pipeline for a prompt file whose ``Model`` is *asked*.

    Anyone may drop a file, so *asked* selects only among the configured pipelines; another folder or
    hub id is never used.

    Returns:
        The pipeline's configured name, its configuration, and warnings.
    """
    default = settings.pipeline
    if default not in settings.pipelines:
        default = _short_name(default)
    pipelines = {name: PipelineTable(source=name) for name in sources.embedded()}
    pipelines |= {default: PipelineTable(source=settings.pipeline)} | settings.pipelines
    # A picture that was made in another root with the same source has the source's name.
    names = {_short_name(table.source): name for name, table in pipelines.items()}
    names |= {settings.pipeline: default} | {name: name for name in pipelines}
    if asked is None or asked in names:
        name = default if asked is None else names[asked]
        return name, pipelines[name], []
    warning = f"Model {asked} is not a pipeline of this root; {default} was used."
    return default, pipelines[default], [warning]


def _short_name(source: str) -> str:
    """Return the name of a folder or file, a hub id without its revision, or an embedded name."""
    path = expanded(source)
    if path.is_dir():
        return path.resolve().name
    if path.suffix == ".safetensors":
        return path.stem
    return source.partition("@")[0]
