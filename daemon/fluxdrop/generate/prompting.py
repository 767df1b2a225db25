"""Read the weights in a run's prompts, as far as its pipeline can take them.

This module imports torch; only the generator process imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fluxdrop.generate.parameters import WeightedText
from fluxdrop.generate.prompt_weights import Fragment, Part, WeightedPrompt, parse_weights
from fluxdrop.generate.weighted_encoding import takes_chunks, takes_weights
from fluxdrop.generate.weighted_prompts import composes

# Pictures fall apart far below; "(16:9)" is hardly meant so.
_LARGE_WEIGHT = 5.0


class ReadPrompts(NamedTuple):
    """The prompts and negative prompts of a run, with what the pipeline does not take left out."""

    prompts: list[WeightedPrompt]
    negatives: list[WeightedPrompt]
    warnings: list[list[str]]
    """For each picture what was left out."""

    @property
    def are_plain(self) -> bool:
        """Whether the texts alone say it all."""
        return all(prompt.is_plain for prompt in (*self.prompts, *self.negatives))

    def weights(self, number: int) -> list[WeightedText]:
        """Return what is weighted in the picture *number*."""
        prompt, negative = self.prompts[number], self.negatives[number]
        parts = [(part.text, part.weight) for part in prompt.parts] if len(prompt.parts) > 1 else []
        return [
            *(WeightedText(text=text, weight=weight) for text, weight in parts),
            *(_weighted_text(fragment, negative=False) for fragment in prompt.weighted),
            *(_weighted_text(fragment, negative=True) for fragment in negative.weighted),
        ]


def read(
    pipe: Any, prompts: Sequence[str], negatives: Sequence[str], guidance_scale: float | None
) -> ReadPrompts:
    """Read *prompts* and the negative prompts beside them for one run of *pipe*."""
    read_prompts = [parse_weights(prompt) for prompt in prompts]
    read_negatives = [parse_weights(negative, composed=False) for negative in negatives]
    warnings = []
    for number in range(len(prompts)):
        prompt, negative = read_prompts[number], read_negatives[number]
        told = []
        if len(prompt.parts) > 1 and not composes(pipe, guidance_scale):
            told.append(
                "AND is not supported by this pipeline, or by a CFG scale of 1 or less;"
                " its prompts are drawn as one."
            )
            prompt = prompt.in_one()
        if not takes_weights(pipe) and (prompt.weighted or negative.weighted):
            shown = ", ".join(
                fragment.text.strip() for fragment in prompt.weighted + negative.weighted
            )
            told.append(f"This pipeline takes no weights; drawn as plain words: {shown}.")
        told += [
            f"{fragment.text.strip()!r} has the weight {fragment.weight:g}, as brackets with a colon and a"
            " number mean; write \\( and \\) for brackets as text."
            for fragment in prompt.weighted + negative.weighted
            if abs(fragment.weight) > _LARGE_WEIGHT
        ]
        if not takes_chunks(pipe) and any(
            len(one.parts[0].chunks) > 1 for one in (prompt, negative)
        ):
            told.append("BREAK is not supported by this pipeline; the text is read in one.")
        if not takes_weights(pipe):
            prompt, negative = _plain(prompt), _plain(negative)
        read_prompts[number], read_negatives[number] = prompt, negative
        warnings.append(told)
    return ReadPrompts(read_prompts, read_negatives, warnings)


def _plain(prompt: WeightedPrompt) -> WeightedPrompt:
    return WeightedPrompt((Part(((Fragment(prompt.text, 1.0),),), 1.0),))


def _weighted_text(fragment: Fragment, *, negative: bool) -> WeightedText:
    return WeightedText(
        text=fragment.text.strip(), weight=round(fragment.weight, 6), negative=negative
    )
