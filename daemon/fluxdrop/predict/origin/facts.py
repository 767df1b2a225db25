"""Facts for model.toml, each with where it was found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fluxdrop.errors import FluxdropError
from fluxdrop.files.regular import open_given
from fluxdrop.predict.label_file import distinct
from fluxdrop.predict.label_formats import Named
from fluxdrop.preprocess import crop_percentage

GUESSED = "guessed: "
"""How the source of a fact begins that nothing states."""
DESCRIPTION = "model.toml"
OPTION = "option"
"""The source of what the user says."""
NO_SOURCES: Mapping[str, str] = MappingProxyType({})
_MAX_JSON_BYTES = 64 << 20
_PROBABILITIES = ("activation", "thresholds")
_VALUES = ("unit", "value_name")
_VOID: dict[str, tuple[str, ...]] = {
    "softmax": (*_PROBABILITIES, *_VALUES),
    "probabilities": (*_PROBABILITIES, *_VALUES),
    "logits": (*_PROBABILITIES, *_VALUES),
    "sigmoid": _VALUES,
    "multi-label": _VALUES,
    "regression": _PROBABILITIES,
    "embedding": (*_PROBABILITIES, *_VALUES, "labels"),
}
"""By ``output``, the keys that are about other kinds of output."""


@dataclass
class Facts:
    """What is known of a model, as keys of model.toml, and where each of them was found."""

    top: dict[str, Any] = field(default_factory=dict)
    """Keys of the file itself, such as ``labels`` and ``output``."""
    input: dict[str, Any] = field(default_factory=dict)
    """Keys of the ``[input]`` table."""
    origin: dict[str, str] = field(default_factory=dict)
    """By key, the source: a file's name with the name that the value has there, or `GUESSED` and why."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user: what was read but cannot be followed, and why."""
    unusable: FluxdropError | None = None
    """Why the pictures cannot be made as the files say; to be raised unless the user says how."""

    def name_classes(self, names: list[str], source: str) -> None:
        """Note the labels; of two that are the same, the second gets its number."""
        found = distinct([Named(name, f"label {number}") for number, name in enumerate(names)])
        self.say("labels", found.labels, source)
        self.notes += found.warnings

    def say(self, key: str, value: Any, source: str) -> None:
        """Note a key of the file itself."""
        self.top[key] = value
        self.origin[key] = source

    def take(self, key: str, value: Any, source: str) -> None:
        """Note a key of the ``[input]`` table."""
        self.input[key] = value
        self.origin[key] = source

    def declare(self, table: dict[str, Any], source: str) -> None:
        """Note keys of the ``[input]`` table that nothing better is known of."""
        for key, value in table.items():
            if key not in self.input:
                self.take(key, value, source)

    def override(
        self, top: dict[str, Any], table: dict[str, Any], sources: Mapping[str, str] = NO_SOURCES
    ) -> None:
        """Take what the user says, with ``crop_pct`` as in `crop_percentage.resolve`.

        A size of the user's own makes the size before the crop void, and another kind of output what the files say of
        the kind that they know. *sources* has the source of each key that is not `OPTION`.

        Raises:
            FluxdropError: What is `unusable` is not overridden.
        """
        if "size" in table:
            self.input.pop("resize_to", None)
        elif self.unusable is not None:
            raise self.unusable
        for key in _VOID.get(str(top.get("output")), ()):
            self.top.pop(key, None)
            self.origin.pop(key, None)
        self.top |= top
        crop_percentage.resolve(self.input, table)
        self.origin |= {key: sources.get(key, OPTION) for key in (*top, *table)}
        crop_pct = self.origin.pop("crop_pct", None)
        if crop_pct:
            self.origin["resize_to"] = crop_pct
        if "resize" in self.input:
            self.origin.setdefault("resize", crop_pct or OPTION)
        if "resize_to" not in self.input:
            self.origin.pop("resize_to", None)

    def update(self, other: Facts) -> None:
        """Take all of *other*, which knows better."""
        self.top |= other.top
        self.input |= other.input
        self.origin |= other.origin
        self.notes += other.notes
        self.unusable = other.unusable or self.unusable


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in *path*, or None if there is no such file.

    Raises:
        FluxdropError: Kind ``model``, when the file cannot be read, is too large, or is not a JSON object.
    """
    try:
        with open_given(path) as file:
            data = file.read(_MAX_JSON_BYTES + 1)
        if len(data) > _MAX_JSON_BYTES:
            raise ValueError(f"it has more than {_MAX_JSON_BYTES >> 20} MiB")
        content = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return None
        reason = error.strerror if isinstance(error, OSError) else error
        raise FluxdropError(f"{path} cannot be read: {reason}", kind="model") from error
    if not isinstance(content, dict):
        raise FluxdropError(f"{path} is not a JSON object", kind="model")
    return content


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Refuse *path*, whose content is read in the block, if a value in it is not of the kind that belongs there.

    Raises:
        FluxdropError: Kind ``model``, instead of what Python raises for such a value.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FluxdropError(
            f"{path} has a value that cannot be used: {error}",
            hint="Correct it; or give the ONNX file alone and say the rest by options, such as --size and --labels.",
            kind="model",
        ) from error


def stated_numbers(values: Mapping[str, Any], key: str) -> list[float]:
    """Return the number or the numbers that *values* has under *key*.

    Raises:
        ValueError: There are none.
    """
    found = numbers(values[key])
    if found is None:
        raise ValueError(f"{key} is {str(values[key])[:60]!r}, which is no list of numbers")
    return found


def numbers(value: Any) -> list[float] | None:
    """Return *value*, a number or a list of numbers, as a list; None if it is neither."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return None
    return [float(v) for v in values]


def class_names(value: Any) -> list[str] | None:
    """Return the names in *value*, a list or a mapping of 0, 1, 2... to names; None if it is neither."""
    if isinstance(value, dict):
        by_index = {str(key): name for key, name in value.items()}
        keys = [str(index) for index in range(len(value))]
        if by_index.keys() != set(keys):
            return None
        value = [by_index[key] for key in keys]
    if not isinstance(value, list | tuple) or not value:
        return None
    names = [str(name).strip() if isinstance(name, str | int | float) else "" for name in value]
    return names if all(names) else None


def from_table(top: dict[str, Any], table: dict[str, Any], file: str) -> Facts:
    """Return what *top* and its ``[input]`` *table*, the content of a model.toml, say; *file* is its name.

    What it says itself of a key's origin stays.
    """
    stated = top.pop("origin", {})
    origin = dict.fromkeys([*top, *table], file)
    if isinstance(stated, dict):
        origin |= {key: str(value) for key, value in stated.items() if key in origin}
    return Facts(top, table, origin)
