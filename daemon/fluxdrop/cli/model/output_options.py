"""The options of ``fluxdrop model add`` that say what a model's numbers mean."""

from __future__ import annotations

from typing import Annotated

import typer

OutputOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="Read the output as softmax, logits, sigmoid, multi-label, regression or embedding.",
    ),
]
OutputNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Use this output, if the model has several.")
]
ActivationOption = Annotated[
    str | None,
    typer.Option(
        metavar="none|sigmoid",
        help="Apply a sigmoid, if the model has none at its end.",
    ),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Count a label as found from this probability; one for all, or one a label.",
    ),
]
ValueNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Call a regression's value this.")
]
UnitOption = Annotated[
    str | None,
    typer.Option(
        metavar="UNIT[,UNIT...]",
        help="Give a regression's values this unit; one for all, or one a value.",
    ),
]
