"""Parse the weights in a prompt, ``BREAK`` and ``AND``, as stable-diffusion-webui means them.

``(word)`` has 1.1 times the weight, ``[word]`` its 1.1th part, ``(word:1.3)`` 1.3 times; a backslash before a bracket
makes it text. See "Attention/emphasis" in its wiki, and ``modules/prompt_parser.py``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fluxdrop.generate.prompt_syntax import UNSUPPORTED_BRACKETS

_FACTOR = 1.1
_AND = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\bBREAK\b")
_NUMBER = re.compile(r"[-+]?(?:\d{1,6}\.?\d{0,9}|\.\d{1,9})", re.ASCII)
# Deeper brackets are text: they would only cost time.
_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\\ (?P<escaped> [()\[\]\\] )
    | (?P<open> [(\[] )
    | : \s* (?P<weight> [+-]?(?:\d{1,6}\.?\d{0,9}|\.\d{1,9}) ) \s* \)
    | (?P<close> [)\]] )
    | (?P<text> [^\\()\[\]:]+ | [\\:] )""",
    re.VERBOSE,
)


class Fragment(NamedTuple):
    """A piece of a prompt's text, without the syntax, and its weight."""

    text: str
    weight: float


Chunk = tuple[Fragment, ...]
"""The fragments between two ``BREAK``, which are encoded apart."""


class Part(NamedTuple):
    """What is between two ``AND``: its noise is predicted apart, and added to the others' with the weight."""

    chunks: tuple[Chunk, ...]
    weight: float

    @property
    def text(self) -> str:
        """The text, without the syntax."""
        return " ".join("".join(fragment.text for fragment in chunk) for chunk in self.chunks)


class WeightedPrompt(NamedTuple):
    """A prompt, parsed."""

    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text, without the syntax."""
        return " ".join(part.text for part in self.parts)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is weighted or divided, so that the text says it all."""
        return len(self.parts) == 1 and len(self.parts[0].chunks) == 1 and not self.weighted

    @property
    def weighted(self) -> list[Fragment]:
        """The fragments with another weight than 1."""
        return [
            fragment
            for part in self.parts
            for chunk in part.chunks
            for fragment in chunk
            if fragment.weight != 1 and fragment.text.strip()
        ]

    def in_one(self) -> WeightedPrompt:
        """Return the prompt with its parts as one, for pipelines that cannot add up the predictions for several."""
        chunks = tuple(chunk for part in self.parts for chunk in part.chunks)
        return self if len(self.parts) == 1 else WeightedPrompt((Part(chunks, 1.0),))


def parse_weights(prompt: str, *, composed: bool = True) -> WeightedPrompt:
    """Parse *prompt*; unbalanced brackets weight up to the end, or are text.

    ``AND`` divides only where *composed* is true: stable-diffusion-webui does so in prompts, but not in negative ones.
    """
    texts = _AND.split(prompt) if composed else [prompt]
    parts = []
    for text in texts:
        weight = 1.0
        if len(texts) > 1:
            before, _colon, number = text.rpartition(":")
            if _NUMBER.fullmatch(number.strip()):
                text, weight = before, float(number)
            text = text.strip()
            if not text:
                continue
        parts.append(Part(_chunks(text), weight))
    return WeightedPrompt(tuple(parts) or (Part(((Fragment("", 1.0),),), 1.0),))


def _chunks(text: str) -> tuple[Chunk, ...]:
    """Return the chunks of a part; empty ones are left out."""
    chunks: list[list[Fragment]] = [[]]
    for fragment in _fragments(text):
        first, *others = _BREAK.split(fragment.text)
        chunks[-1].append(fragment._replace(text=first.rstrip() if others else first))
        for number, other in enumerate(others, 1):
            text = other.strip() if number < len(others) else other.lstrip()
            chunks.append([fragment._replace(text=text)])
    merged = [_merge(chunk) for chunk in chunks]
    return tuple(chunk for chunk in merged if chunk) or ((Fragment("", 1.0),),)


def _fragments(text: str) -> list[Fragment]:
    """Return the fragments of *text*, each with the product of the weights of all brackets around it."""
    literal = {n for match in UNSUPPORTED_BRACKETS.finditer(text) for n in range(*match.span())}
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, factor: float) -> None:
        for index in range(opened[bracket].pop(), len(weights)):
            weights[index] *= factor

    for match in _TOKEN.finditer(text):
        bracket = "[" if match["close"] == "]" else "("
        if match.start() in literal:
            texts.append(match[0])
            weights.append(1.0)
        elif match["open"] and len(opened[match["open"]]) < _MAX_DEPTH:
            opened[match["open"]].append(len(texts))
        elif match["weight"] and opened["("]:
            close("(", float(match["weight"]))
        elif match["close"] and opened[bracket]:
            close(bracket, _FACTOR if bracket == "(" else 1 / _FACTOR)
        else:
            texts.append(match["escaped"] or match[0])
            weights.append(1.0)
    for bracket, factor in (("(", _FACTOR), ("[", 1 / _FACTOR)):
        while opened[bracket]:
            close(bracket, factor)
    return [Fragment(text, weight) for text, weight in zip(texts, weights, strict=True)]


def _merge(fragments: list[Fragment]) -> Chunk:
    """Return *fragments* with neighbours of the same weight as one, and without empty ones."""
    merged: list[Fragment] = []
    for fragment in fragments:
        if not fragment.text:
            continue
        if merged and merged[-1].weight == fragment.weight:
            merged[-1] = Fragment(merged[-1].text + fragment.text, fragment.weight)
        else:
            merged.append(fragment)
    return tuple(merged)
