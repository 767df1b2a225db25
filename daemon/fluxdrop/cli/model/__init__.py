"""``fluxdrop model``: what can be done with model bundles, a module each."""

from __future__ import annotations

from typing import ClassVar

import typer

from fluxdrop.cli.lazy import Entry, LazyGroup


class _Commands(LazyGroup):
    entries: ClassVar = {
        "add": Entry(
            "fluxdrop.cli.model.add:add",
            "Add an image classifier, after proving that it runs and, if it is ONNX, agrees with onnxruntime.",
        ),
        "list": Entry(
            "fluxdrop.cli.model.listing:list_models",
            "List the models that are there: the embedded ones and those that were added.",
        ),
        "check": Entry(
            "fluxdrop.cli.model.check:check",
            "Compare the model with onnxruntime, node by node; exit code 1 if one diverges.",
        ),
        "use": Entry(
            "fluxdrop.cli.model.use:use",
            "Judge pictures by this model from now on; a running daemon changes over without a pause.",
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
    """The models that judge the pictures."""
