"""Julias that do something before they are Julia, and workers that misbehave."""

from __future__ import annotations

from pathlib import Path

from fluxdrop.resources import julia_folder
from support.needs import JULIA

HOOKED = """
const WORKER = "{worker}"
const HOOK = "{hook}"
const CODE = replace(read(WORKER, String), "\\nusing" => "\\ninclude(HOOK)\\nusing"; count=1)
include_string(Main, CODE, WORKER)
"""

ONCE = """
using .FluxdropWorker: FluxdropWorker, PREDICT, PREDICT_SHARED, PREDICTION, answer
const PREDICTS = Ref(0)
const HOARD = Vector{{UInt8}}[]

function FluxdropWorker.answer(pipe::FluxdropWorker.Pipe, kind, id, model, backend, compiled)
    kind in (PREDICT, PREDICT_SHARED) && (PREDICTS[] += 1)
    # The first forward pass is the one at the start, before the worker is given work.
    if PREDICTS[] == 2 && !isfile("{marker}")
        touch("{marker}")
        {does}
    end
    return invoke(answer, NTuple{{6,Any}}, pipe, kind, id, model, backend, compiled)
end
"""


def julia_that(folder: Path, does: str, hook: Path | None = None) -> Path:
    """An executable that first does as told by the shell, and then is Julia where there is one.

    The Julia code in *hook* is run in each worker after its own code has been loaded.
    """
    path = folder / "julia"
    lines = ["#!/bin/sh", '[ "$1" = --version ] && echo julia version 1.10.4 && exit', does]
    if hook is not None:
        worker = str(julia_folder() / "worker.jl")
        hooked = folder / "hooked.jl"
        hooked.write_text(HOOKED.format(worker=worker, hook=hook))
        lines += [
            'for word do shift; case "$word" in */worker.jl)'
            f' word="{hooked}";; esac; set -- "$@" "$word"; done'
        ]
    if JULIA is not None:
        lines += [f"export {key}='{value}'" for key, value in JULIA.env.items()]
        lines += [f'exec {JULIA.executable} "$@"']
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


def julia_that_once(folder: Path, does: str) -> Path:
    """A Julia of whose workers one, over its first pictures, does as told in Julia code.

    The code sees `pipe`, the frame's `id` and what else `FluxdropWorker.answer` is given.
    """
    hook = folder / "hook.jl"
    hook.write_text(ONCE.format(does=does, marker=folder / "done"))
    return julia_that(folder, ":", hook)
