"""The forms in which lists of labels are written: JSON, tables, and lines.

Each function returns the names in the model's order, with the place of each in the file, for warnings. What could mean
two things is refused: a wrong order would make each answer wrong.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_NUMBERED = re.compile(r"(\d+)(?:\s*[:,;=)]\s*|\.\s+|\s+)(\S.*)")
# WordNet's numbers in front of ImageNet's names, as in synset_words.txt.
_SYNSET = re.compile(r"n\d{8}[\s,:]+(\S.*)")
# The column with the names, the likeliest first.
_NAME_COLUMNS = (
    "label", "name", "class_name", "label_name", "display_name", "category_name", "class", "category", "title",
    "description", "labels", "names", "classes", "categories",
)  # fmt: skip
_NUMBER_COLUMNS = ("index", "id", "idx", "number", "class_id", "label_id", "class_index", "class_idx")  # fmt: skip
_COLUMNS = frozenset({*_NAME_COLUMNS, *_NUMBER_COLUMNS})
# Keys of JSON files that have the labels below them: transformers' config.json, timm's, ultralytics', and others'.
_KEYS = ("id2label", "label_names", "names", "labels", "classes", "class_names", "label2id")


class UnclearLabelsError(Exception):
    """The text is no list of labels, or it is not clear which name belongs to which number: the end of a sentence."""


class Named(NamedTuple):
    """A label, and where it is in the file: ``line 135`` or ``number 134``."""

    name: str
    place: str


def from_json(text: str) -> list[Named]:
    """Read a JSON or Python list of names, or a map from numbers to names or from names to numbers.

    A name may also be a list, as ImageNet's ``["n01440764", "tench"]``: its last part is the name. A map may be below
    one of the keys `_KEYS`.

    Raises:
        UnclearLabelsError: It is none of these.
    """
    return [
        Named(_name(value), f"number {number}") for number, value in enumerate(_values(_load(text)))
    ]


def from_table(lines: Sequence[str]) -> list[Named]:
    """Read a table whose cells are separated by commas, semicolons or tabs, with or without a header.

    Raises:
        UnclearLabelsError: It is not clear which column has the names, or in which order they are.
    """
    text = [line for line in lines if line.strip()]
    delimiter = max(",;\t", key=lambda mark: text[0].count(mark))
    rows = [[cell.strip() for cell in row] for row in csv.reader(text, delimiter=delimiter)]
    places = [f"line {number}" for number, line in enumerate(lines, 1) if line.strip()]
    if len(rows) == 1 and len(rows[0]) > 1:
        return [Named(cell, f"cell {number}") for number, cell in enumerate(rows[0], 1) if cell]
    if len({len(row) for row in rows}) > 1 or len(rows) != len(places):
        raise UnclearLabelsError("its lines have different numbers of cells")
    header = [cell.casefold().replace(" ", "_") for cell in rows[0]]
    has_header = any(cell in _COLUMNS for cell in header) and not _is_number(rows[0])
    if has_header:
        rows, places = rows[1:], places[1:]
    numbers = _number_column(header if has_header else [], rows)
    names = [row[_name_column(header if has_header else [], rows, numbers)] for row in rows]
    if len(set(names)) * 2 < len(names):
        raise UnclearLabelsError(
            f"{len(names)} lines have {len(set(names))} names: that is a list of pictures"
        )
    found = [Named(name, place) for name, place in zip(names, places, strict=True)]
    if numbers is None:
        return found
    return _in_order((int(row[numbers]) for row in rows), found)


def from_lines(lines: Sequence[str]) -> list[Named]:
    """Read one label a line. Numbers from 0, and WordNet's, in front of all names are not part of them.

    Raises:
        UnclearLabelsError: The numbers are not in order and do not begin at 0.
    """
    found = [
        Named(line.strip(), f"line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    numbered = [_NUMBERED.fullmatch(name) for name, _ in found]
    if found and all(numbered):
        numbers = [int(match[1]) for match in numbered if match]
        names = [match[2] for match in numbered if match]
        bare = [Named(name, place) for name, (_, place) in zip(names, found, strict=True)]
        # "0 euro", "1 euro": the numbers are what tells these apart.
        if len(set(names)) > 1 or len(names) == 1:
            if sorted(numbers) == list(range(len(numbers))):
                return _without_synsets(_in_order(numbers, bare))
            if sorted(numbers) == list(range(1, len(numbers) + 1)) and numbers != sorted(numbers):
                raise UnclearLabelsError(
                    f"its numbers are 1 to {len(numbers)} and not in order, and a model counts from 0"
                )
    return _without_synsets(found)


def is_table(lines: Sequence[str]) -> bool:
    """Return whether the first of *lines* is a header of a table, as far as that can be seen."""
    first = next((line for line in lines if line.strip()), "")
    cells = [
        cell.strip().strip('"').casefold().replace(" ", "_") for cell in re.split("[,;\t]", first)
    ]
    return len(cells) > 1 and any(cell in _COLUMNS for cell in cells)


def _load(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except RecursionError:
        raise UnclearLabelsError("it is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            # The list of ImageNet's labels that is copied most is a Python dictionary: {0: 'tench', ...}.
            try:
                return ast.literal_eval(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                pass
        raise UnclearLabelsError(f"it is not valid JSON: {error}") from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dictionary; refuse a key that occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise UnclearLabelsError(f"it has {max(keys, key=keys.count)!r} twice")
    return found


def _values(loaded: Any) -> list[Any]:
    """Return the names in *loaded*, in order."""
    if isinstance(loaded, list):
        if loaded and all(isinstance(item, dict) for item in loaded):
            return _records(loaded)
        return loaded
    if not isinstance(loaded, dict):
        raise UnclearLabelsError("it is neither a list nor a map of labels")
    if loaded and all(_is_index(key) for key in loaded):
        return _in_order((int(key) for key in loaded), list(loaded.values()))
    if loaded and all(isinstance(value, int) for value in loaded.values()):
        return _in_order(loaded.values(), list(loaded))
    for key in _KEYS:
        if isinstance(loaded.get(key), list | dict):
            return _values(loaded[key])
    raise UnclearLabelsError("it has no map from numbers to names")


def _records(items: list[dict[str, Any]]) -> list[Any]:
    """Return the names of objects such as ``{"id": 0, "name": "cat"}``."""
    keys = [key for key in _NAME_COLUMNS if all(isinstance(item.get(key), str) for item in items)]
    if not keys:
        raise UnclearLabelsError("its objects have no name")
    names: list[Any] = [item[keys[0]] for item in items]
    numbers = [key for key in _NUMBER_COLUMNS if all(_is_index(item.get(key)) for item in items)]
    return _in_order((int(item[numbers[0]]) for item in items), names) if numbers else names


def _name(value: Any) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        value = value[-1]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise UnclearLabelsError(f"{json.dumps(value, default=str)[:60]} is not a label")
    return str(value).strip()


def _in_order(numbers: Iterable[int], items: list[T]) -> list[T]:
    """Return *items* sorted by their *numbers*, which have to be 0, 1, 2 ... in any order."""
    by_number: dict[int, T] = {}
    for number, item in zip(numbers, items, strict=True):
        if number in by_number:
            raise UnclearLabelsError(f"the number {number} has two names")
        by_number[number] = item
    wanted = range(len(by_number))
    missing = next((number for number in wanted if number not in by_number), None)
    if missing is not None:
        raise UnclearLabelsError(
            f"its numbers are {min(by_number)} to {max(by_number)}, and {missing} is missing"
        )
    return [by_number[number] for number in wanted]


def _number_column(header: list[str], rows: list[list[str]]) -> int | None:
    """Return the column with the labels' numbers: the one that is called so, or that has 0, 1, 2 ... in any order."""
    width = len(rows[0]) if rows else 0
    if width < 2:
        return None
    wanted = {str(number) for number in range(len(rows))}
    fitting = [column for column in range(width) if {row[column] for row in rows} == wanted]
    if fitting:
        return fitting[0]
    for column, name in enumerate(header):
        if name in _NUMBER_COLUMNS and all(row[column].isdecimal() for row in rows):
            # The numbers are not those of a model: the caller's `_in_order` says why.
            return column
    return None


def _name_column(header: list[str], rows: list[list[str]], numbers: int | None) -> int:
    for name in _NAME_COLUMNS:
        if name in header and header.index(name) != numbers:
            return header.index(name)
    others = [column for column in range(len(rows[0]) if rows else 0) if column != numbers]
    if len(others) != 1:
        columns = ", ".join(header) or f"{len(rows[0]) if rows else 0} without names"
        raise UnclearLabelsError(f"it is not clear which of its columns has the labels: {columns}")
    return others[0]


def _without_synsets(found: list[Named]) -> list[Named]:
    matches = [_SYNSET.fullmatch(name) for name, _ in found]
    if not all(matches):
        return found
    return [
        Named(match[1], place) for match, (_, place) in zip(matches, found, strict=True) if match
    ]


def _is_number(cells: list[str]) -> bool:
    return any(cell.isdecimal() for cell in cells)


def _is_index(key: Any) -> bool:
    if isinstance(key, str):
        return key.isascii() and key.isdecimal()
    return isinstance(key, int) and not isinstance(key, bool)
