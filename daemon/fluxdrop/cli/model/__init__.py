"""``fluxdrop model``: the commands for model bundles, one module each."""

from __future__ import annotations

from typing import ClassVar

import typer

from fluxdrop.cli.lazy import Entry, LazyGroup


class _Commands(LazyGroup):
    entries: ClassVar = {
        "add": Entry(
            "fluxdrop.cli.model.add:add",
            "Add an image classifier to the root, after testing that it works.",
        ),
        "list": Entry(
            "fluxdrop.cli.model.listing:list_models",
            "List the models: those that come with fluxdrop and those that were added.",
        ),
        "check": Entry(
            "fluxdrop.cli.model.check:check",
            "Compare what Julia and onnxruntime compute for a model, node by node.",
        ),
        "use": Entry(
            "fluxdrop.cli.model.use:use",
            "Classify pictures with this model from now on.",
        ),
        "compile": Entry(
            "fluxdrop.cli.model.compile:compile_model",
            "Compile a model to the graph file that julia/flux_model.jl and the worker read.",
        ),
    }


model_app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@model_app.callback()
def _main() -> None:
    """Manage the models that classify the pictures."""
