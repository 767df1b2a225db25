"""Check what was found out about a model before it becomes its model.toml, with the source of each value."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.bundle import BundleSpec
from fluxdrop.predict.origin.facts import DESCRIPTION, OPTION, Facts

_KEY = re.compile(r"unknown field `(\w+)|\$\.(?:input\.)?(\w+)|input\.(\w+)")


def check_values(source: Path, facts: Facts) -> None:
    """Check that *facts* can be written to a model.toml, as far as that depends on each value alone.

    Args:
        source: The file or folder that the facts are of, for the message.
        facts: What is known; the size may be missing.

    Raises:
        FluxdropError: Kind ``model``, when a value is wrong; the message says where it comes from.
    """
    top = {key: value for key, value in facts.top.items() if key != "origin"}
    try:
        spec = msgspec.convert(top | {"input": {"size": [1, 1], **facts.input}}, BundleSpec)
        problem = spec.input.problem()
    except msgspec.ValidationError as error:
        problem = str(error)
    if not problem:
        return
    match = _KEY.search(problem)
    key = match[match.lastindex or 0] if match else ""
    where = facts.origin.get(key, OPTION)
    if where == OPTION:
        raise FluxdropError(
            f"What the options say is wrong: {problem}",
            hint="`fluxdrop model add --help` tells what each key may be.",
            kind="model",
        )
    if where == DESCRIPTION:
        raise FluxdropError(f"{source / DESCRIPTION} is wrong: {problem}", kind="model")
    raise FluxdropError(
        f"{source} has a wrong value for {key} ({where}): {problem}",
        hint=f"Correct it, or give another one with --{key.replace('_', '-')}.",
        kind="model",
    )
