"""What the table of a folder gives to the prompts that are dropped there."""

from __future__ import annotations

from typing import Any

import msgspec

from fluxdrop.config import FolderTable, Settings
from fluxdrop.generate.choose_pipeline import is_configured
from fluxdrop.generate.parameters import PromptParameters


def with_defaults(
    parameters: PromptParameters, table: FolderTable, settings: Settings
) -> tuple[PromptParameters, list[str]]:
    """Return *parameters* with the values of *table* for what they leave open, and warnings.

    A pipeline that the settings do not have counts as left open: infotext from elsewhere names that of its picture.
    """
    filled: dict[str, Any] = {
        field: getattr(table, field)
        for field in ("steps", "guidance_scale", "width", "height", "sampler", "seed")
        if getattr(parameters, field) is None
    }
    if parameters.random_seed:
        filled.pop("seed", None)
    has_negative = parameters.negative_prompt or parameters.no_negative_prompt
    if not has_negative and table.negative_prompt is not None:
        filled["negative_prompt"] = table.negative_prompt
    warnings = []
    if table.pipeline is not None and not is_configured(settings, parameters.pipeline):
        filled["pipeline"] = table.pipeline
        if parameters.pipeline is not None:
            asked = parameters.pipeline
            warnings = [f"Model {asked} is not a pipeline of this root; {table.pipeline} was used."]
    return msgspec.structs.replace(parameters, **filled), warnings
