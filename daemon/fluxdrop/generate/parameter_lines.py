"""Find the parameters in a prompt's lines.

stable-diffusion-webui reads the last line only, if it has three pairs (``modules/infotext_utils.py``). People also
write ``Seed: 42`` alone, one parameter a line, or lines below the parameters, and describe pictures as
``Style: flat, ...``. So a line is parameters only if it has a key that is known.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import NamedTuple

Pair = tuple[str, str]
"""A key and its value, which may still be in quotes."""

NEGATIVE = "Negative prompt:"

# A key has to follow the beginning of the line or a comma. So the weights in a prompt such as
# "(red hair:1.2), (smile:0.8)" do not match, and a long line takes linear time.
_PAIR = re.compile(
    r"""(?: ^ | (?<=,) ) \s* (?P<key> \w[\w /-]+ ) :
        \s* (?P<value> "(?: [^"\\] | \\. )+" | [+-]?\d+,\d+(?= \s* (?: , | $ ) ) | [^,]* ) (?: , | $ )""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"[+-]?\d\S*", re.ASCII)
_NUMBER = re.compile(r"[+-]?[\d.,]*\d[\d.,]*", re.ASCII)
_SIZE = re.compile(r"\d+\s*[xX*\u00d7]\s*\d+", re.ASCII)
_NAME = re.compile(r"\S.*", re.DOTALL)

# The keys that are used, and the form of a value that can be meant as one.
_USED = {
    "clip skip": _NUMBER,
    "denoising strength": _NUMBER,
    "steps": _INTEGER,
    "seed": _INTEGER,
    "size": _SIZE,
    "width": _INTEGER,
    "height": _INTEGER,
    "batch size": _INTEGER,
    "cfg": _NUMBER,
    "cfg scale": _NUMBER,
    "guidance scale": _NUMBER,
    "distilled cfg scale": _NUMBER,
    "sampler": _NAME,
    "schedule type": _NAME,
    "scheduler": _NAME,
    "model": _NAME,
}
# Keys of other programs with which a line of parameters may begin.
_UNUSED = {"model hash", "version", "vae", "eta", "ensd", "rng"}
# Keys of JSON, which people write in lines, too; "_" and "-" are spaces here.
_ALIASES = {
    "num inference steps": "Steps",
    "inference steps": "Steps",
    "sampling steps": "Steps",
    "noise seed": "Seed",
    "guidance": "Distilled CFG Scale",
    "resolution": "Size",
    "num images": "Batch size",
    "num images per prompt": "Batch size",
    "sampler name": "Sampler",
    "model name": "Model",
    "checkpoint": "Model",
    "sd model checkpoint": "Model",
}
# What may be meant as a parameter in another form, such as "- Seed: 42" and "seed=42".
_DOUBTFUL = re.compile(
    r"(?<![^\W_])(?:seeds?|steps|cfg|scale)[\s*_`'\"]{0,4}[:=\uff1a][\s*_`'\"]{0,4}[+-]?\d"
    r"|(?<![\w-])(?:seed\s(?=\d)|(?:size|width|height|resolution|sampler)\s?=\s?)\w*\d"
    r"|^\W{0,4}(?:neg|negative)[\s_-]?prompts?\b"
    r"|^\W{0,4}(?:\w{1,20}\s)?(?:neg|negatives?|negativ\w{0,3}|n[e\u00e9]gatif|\u53cd\u5411|\u8d1f\u9762"
    r"|\u8ca0\u9762|\u30cd\u30ac\u30c6\u30a3\u30d6)[\w -]{0,30}\W{0,3}[:\uff1a]",
    re.IGNORECASE,
)
_NEGATIVE_KEY = re.compile(
    r"[*_>#\s-]{0,4}(?:neg(?:ative?r?)?[\s_-]?prompts?|prompts?[\s_-](?:n[e\u00e9]gatif|negativo)"
    r"|(?:\u53cd\u5411|\u8d1f\u9762|\u8ca0\u9762)(?:\u63d0\u793a[\u8bcd\u8a5e])"
    r"|\u30cd\u30ac\u30c6\u30a3\u30d6\u30d7\u30ed\u30f3\u30d7\u30c8)"
    r"[*_]{0,3}\s?[:\uff1a][*_]{0,3}",
    re.IGNORECASE,
)
"""The negative prompt's key, also as in YAML, Markdown, German, French, Spanish, Chinese and Japanese."""
_PROMPT_KEY = re.compile(
    r"[*_]{0,3}(?:positive[\s_-])?prompt[*_]{0,3}\s?[:\uff1a][*_]{0,3}", re.IGNORECASE
)
_YAML_BLOCK = re.compile(r"^[|>][+-]?\s*\n\s*")
_FULL_WIDTH = str.maketrans({"\uff1a": ":", "\uff0c": ","})
_MIN_PAIRS = 3
_MAX_SHOWN = 200


class Divided(NamedTuple):
    """A prompt's lines, divided."""

    prompt: str
    negative_prompt: str | None
    """Empty where its key stands alone; None where there is none."""
    pairs: list[Pair]
    unparsed: list[str]
    """The parts of the parameters' lines that are no pair."""
    warnings: list[str]


class _Line(NamedTuple):
    """A line and the pairs in it."""

    text: str
    pairs: list[Pair]
    gaps: list[str]
    """What is between the pairs; the first is what is before them."""

    @property
    def is_negative(self) -> bool:
        return _NEGATIVE_KEY.match(self.text) is not None

    @property
    def is_doubtful(self) -> bool:
        """Return whether a warning is due where the line is drawn."""
        return not self.is_negative and (
            self.usable(names=False) > 0
            or self.known
            or _DOUBTFUL.search(self.text.casefold()) is not None
        )

    @property
    def known(self) -> bool:
        """Whether the line begins with a known key."""
        return self.begins_with(_USED) or self.begins_with(_UNUSED)

    def begins_with(self, keys: Container[str]) -> bool:
        """Return whether the line begins with one of *keys*."""
        return bool(self.pairs) and not self.gaps[0] and self.pairs[0][0].casefold() in keys

    def usable(self, *, names: bool = True) -> int:
        """Return the number of pairs that can be meant as parameters; with *names*, also samplers and models."""
        forms = [(_USED.get(key.casefold()), value) for key, value in self.pairs]
        return sum(
            form is not None and (names or form is not _NAME) and form.fullmatch(value) is not None
            for form, value in forms
        )

    def is_parameters(self, *, alone: bool) -> bool:
        """Return whether the line is parameters, where it is one of the last; *alone* if it is the first one, too."""
        if self.is_negative:
            return False
        if self.text.startswith("Steps:") and len(self.pairs) >= _MIN_PAIRS:
            return True
        if not self.usable(names=not alone) or self.gaps[0]:
            return False
        if len(self.pairs) == 1 and len(self.pairs[0][1]) == 1 and not self.usable(names=False):
            # "Model: T" describes a car.
            return False
        if len(self.pairs) < _MIN_PAIRS:
            return self.known and not any(self.gaps)
        return self.known or (not alone and self.usable() > 1)

    def is_surely_parameters(self) -> bool:
        """Return whether the line is parameters even where more lines follow."""
        steps = self.text.startswith("Steps:") and self.usable(names=False) > 0
        return steps or (
            len(self.pairs) >= _MIN_PAIRS and self.known and self.usable(names=False) > 1
        )


def divide(text: str) -> Divided:
    """Divide *text* into the prompts and the pairs of the parameters. White space around each line is removed.

    Parameters are the last lines, as long as they are lines of parameters; those directly before the negative prompt;
    and any line that begins as programs write it, in which case the lines below it are named in a warning.
    """
    lines = [_line(line.strip()) for line in text.strip().split("\n")]
    lines = _prompt_first(lines)
    warnings = []
    found: list[_Line] = []
    for number in range(1, len(lines) - 1):
        if lines[number].is_surely_parameters() and any(line.text for line in lines[:number]):
            lines, below = lines[: number + 1], lines[number + 1 :]
            lines, rest = _kept_below(lines, below)
            if rest:
                warnings.append(
                    f"Not used, as it follows the parameters: {_shown(' / '.join(rest))}"
                )
            break
    lines = _take_last(lines, found)
    first_negative = next((n for n, line in enumerate(lines) if line.is_negative), 0)
    if first_negative:
        lines = _take_last(lines[:first_negative], found) + lines[first_negative:]
    warnings += _doubts(lines)
    prompt, negative = _split_prompts(lines)
    if (key := _PROMPT_KEY.match(prompt)) is not None:
        if found or negative is not None:
            prompt = _yaml_text(prompt[key.end() :])
            negative = None if negative is None else _yaml_text(negative)
        else:
            warnings.append(f"Drawn as a part of the prompt: {key[0]}")
    return Divided(
        prompt,
        negative,
        [pair for line in found for pair in line.pairs],
        [gap for line in found for gap in line.gaps if gap],
        warnings,
    )


def doubts(text: str) -> list[str]:
    """Return a warning for each line of *text*, all of which is drawn, that looks like parameters."""
    lines = [_line(line.strip()) for line in text.split("\n")]
    negative = [
        f"Taken as a part of the prompt: {_shown(line.text)}" for line in lines if line.is_negative
    ]
    return _doubts(lines) + negative


def _doubts(lines: Sequence[_Line]) -> list[str]:
    return [
        f"Taken as a part of the prompt, not as parameters: {_shown(line.text)}"
        for line in lines
        if line.is_doubtful
    ]


def _kept_below(lines: list[_Line], below: Sequence[_Line]) -> tuple[list[_Line], list[str]]:
    """Return *lines* with those of *below* them that count, and the others' texts.

    Further parameters count, and a negative prompt if there is none above.
    """
    has_negative = any(line.is_negative for line in lines)
    rest: list[str] = []
    for line in below:
        if line.is_negative and not has_negative:
            lines = [*lines[:-1], line, lines[-1]]
            has_negative = True
        elif line.text and line.is_parameters(alone=False) and not rest:
            lines = [*lines, line]
        elif line.text:
            rest.append(line.text)
    return lines, rest


def _prompt_first(lines: list[_Line]) -> list[_Line]:
    """Return *lines* with those in front of the prompt's key at the end, if each has a key of its own."""
    start = next((n for n, line in enumerate(lines) if _PROMPT_KEY.match(line.text)), 0)
    before = lines[:start]
    if all(not line.text or line.is_negative or line.is_parameters(alone=False) for line in before):
        return lines[start:] + before
    return lines


def _yaml_text(text: str) -> str:
    """Return *text* without the quotes around it or the sign of a block."""
    text = _YAML_BLOCK.sub("", text.strip())
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text.count(text[0]) == 2
    return text[1:-1] if quoted else text


def _take_last(lines: list[_Line], found: list[_Line]) -> list[_Line]:
    """Return *lines* without the lines of parameters at the end, which are put before those *found*."""
    end = len(lines)
    while end and (
        not lines[end - 1].text
        or lines[end - 1].is_parameters(alone=not any(line.text for line in lines[: end - 1]))
    ):
        end -= 1
    found[:0] = [line for line in lines[end:] if line.text]
    return lines[:end]


def _split_prompts(lines: Sequence[_Line]) -> tuple[str, str | None]:
    """Return the prompt and the negative prompt, if there is one."""
    prompt: list[str] = []
    negative: list[str] | None = None
    for line in lines:
        if (key := _NEGATIVE_KEY.match(line.text)) is not None:
            negative = negative or []
            negative.append(line.text[key.end() :].strip())
        else:
            (prompt if negative is None else negative).append(line.text)
    joined = None if negative is None else "\n".join(negative).strip()
    return "\n".join(prompt).strip(), joined


def _shown(text: str) -> str:
    """Return *text* as warnings show it."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _line(text: str) -> _Line:
    plain = text.translate(_FULL_WIDTH)
    if plain.startswith("**"):
        plain = plain.replace("**", "")
    matches = list(_PAIR.finditer(plain))
    ends = [0, *(match.end() for match in matches)]
    starts = [*(match.start() for match in matches), len(plain)]
    gaps = [plain[end:start].strip(" ,") for end, start in zip(ends, starts, strict=True)]
    return _Line(text, [(_key(m["key"].strip()), m["value"].strip()) for m in matches], gaps)


def _key(key: str) -> str:
    """Return infotext's key for *key*, or *key* where it has none."""
    folded = re.sub(r"[\s_-]+", " ", key).casefold()
    if folded in _USED:
        return key if key.casefold() == folded else folded
    return _ALIASES.get(folded, key)
