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
    pipelines, names, default = _configured(settings)
    if asked is None or asked in names:
        name = default if asked is None else names[asked]
        return name, pipelines[name], []
    warning = f"Model {asked} is not a pipeline of this root; {default} was used."
    return default, pipelines[default], [warning]


def is_configured(settings: Settings, asked: str | None) -> bool:
    """Return whether `choose` finds a pipeline that *asked* means."""
    return asked in _configured(settings)[1]


def configured(settings: Settings) -> tuple[dict[str, PipelineTable], str]:
    """Return the pipelines that prompt files can select, by name, and the name of the default one."""
    pipelines, _names, default = _configured(settings)
    return pipelines, default


def _configured(settings: Settings) -> tuple[dict[str, PipelineTable], dict[str, str], str]:
    """Return the pipelines by name, the name that each way to ask for one means, and the default's name."""
    default = settings.pipeline
    if default not in settings.pipelines:
        default = _short_name(default)
    pipelines = {name: PipelineTable(source=name) for name in sources.embedded()}
    pipelines |= {default: PipelineTable(source=settings.pipeline)} | settings.pipelines
    of_folders = {}
    for source in filter(None, (table.pipeline for table in settings.folders.values())):
        if source not in pipelines and source != settings.pipeline:
            short = _short_name(source)
            of_folders[source] = source if short in pipelines else short
            pipelines[of_folders[source]] = PipelineTable(source=source)
    # A picture that was made in another root with the same source has the source's name.
    names = {_short_name(table.source): name for name, table in pipelines.items()}
    names |= of_folders | {settings.pipeline: default} | {name: name for name in pipelines}
    return pipelines, names, default


def _short_name(source: str) -> str:
    """Return the name of a folder or file, a hub id without its revision, or an embedded name."""
    path = expanded(source)
    if path.is_dir():
        return path.resolve().name
    if path.suffix == ".safetensors":
        return path.stem
    return source.partition("@")[0]
