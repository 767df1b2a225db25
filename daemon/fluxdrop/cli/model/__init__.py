"""``fluxdrop model``: the commands for model bundles, one module each."""

from __future__ import annotations

from typing import ClassVar

import typer

from fluxdrop.cli.lazy import Entry, LazyGroup


class _Commands(LazyGroup):
    entries: ClassVar = {
        "add": Entry(
            "fluxdrop.cli.model.add:add",
            "Add an image model to the root, after testing that it works.",
        ),
        "list": Entry(
            "fluxdrop.cli.model.listing:list_models",
            "List the embedded models and those that were added.",
        ),
        "show": Entry(
            "fluxdrop.cli.model.show:show_model",
            "Show what a model's model.toml says, and where each value came from.",
        ),
        "check": Entry(
            "fluxdrop.cli.model.check:check",
            "Compare a model in Julia with onnxruntime, node by node.",
        ),
        "use": Entry(
            "fluxdrop.cli.model.use:use",
            "Classify pictures with this model from now on.",
        ),
        "remove": Entry(
            "fluxdrop.cli.model.remove:remove",
            "Remove a model that was added.",
        ),
        "compile": Entry(
            "fluxdrop.cli.model.compile:compile_model",
            "Compile a model to a graph file.",
        ),
        "export": Entry(
            "fluxdrop.cli.model.export:export",
            "Write an ONNX model as a native Flux model.",
        ),
    }


model_app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@model_app.callback()
def _main() -> None:
    """Manage the models that classify the pictures."""
