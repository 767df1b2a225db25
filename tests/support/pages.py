"""The pages of docs/ that are generated from the code: `PYTHONPATH=tests python -m support.pages` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec

from fluxdrop.config import PREFIX, Settings
from fluxdrop.records.schema import FILE
from fluxdrop.tables.columns import COLUMNS

DOCS = Path(__file__).parents[2] / "docs"

_CONFIGURATION = """# Configuration

Each value is taken from the first of these that has it:

1. a flag of the command, such as `fluxdrop run --engine julia`;
2. a `FLUXDROP_` variable of the environment;
3. for `model`: what `fluxdrop model use` chose;
4. `fluxdrop.toml` in the root, one `key = value` per line;
5. the default.

An unknown key, or a value of the wrong kind, is an error that names the file and the nearest right key.
This page is generated from `daemon/fluxdrop/config/settings.py`.

"""

_RESULTS = """# Results

Beside each picture in `outputs/` is `NAME.json`; beside each input in `outputs/failed/`, `INPUT.error.json`. The field
`status` tells them apart. A program can check them against the JSON Schema, from which this page is generated:
`daemon/fluxdrop/records/result.schema.json`. Paths are relative to the root. `schema_version` changes when a field
changes its meaning or is removed; new fields may be added without a new version. Version 2 added kinds of answer other
than classification, and lists of the most probable labels only; version 1 is read everywhere, too.

[Tables](#tables) has all results as CSV, JSON Lines or Parquet; [hooks](hooks.md) hand each to a program of yours.

"""

_TABLES = """## Tables

`fluxdrop export -o table.csv` writes a row for each result, the oldest first. `--since`, `--until`, `--label`,
`--model`, `--folder` and `--state` (`done`, `failed` or `all`) select. The format is that of the file's name or of
`--format`: `csv`, `jsonl` (JSON Lines) or `parquet`, which needs `pip install 'fluxdrop[parquet]'`. The file is written
whole or not at all, and replaces another only with `--replace`. A result that is gone or damaged is left out, which is
said.

- Each row has the columns below; they never change their names or their order.
- After them is a column for each label, `p_LABEL`, and for each value of a regression, `value_NAME (UNIT)`, in the
  order in which they are first met. It is empty where a result does not list the label. That is not the same as 0: a
  result lists the most probable labels (`result_labels`).
- With `--long`, a row is one label or value instead: `item`, `item_p`, `item_threshold` and `item_found` (of
  multi-label answers), `item_value`, `item_unit`. These columns are the same whatever the models are.
- A line of JSON Lines has `probabilities`, `thresholds` and `values` instead, as in the result.
- A picture that several models answered has a row for each; `prediction` numbers them.
- Of an embedding, the table has the path of its `.npy` file.

CSV is that of RFC 4180 in UTF-8; lists are JSON. A file begins with a byte order mark, as Excel needs one (pandas and
readr skip it; R's `read.csv` does with `fileEncoding = "UTF-8-BOM"`); standard output does not. **Text that begins with
`=`, `+`, `-`, `@`, a tab or a carriage return gets a `'` before it**, since a spreadsheet would run it as a formula,
and anybody who may write to the inbox chooses names and prompts. So the sample `-5C` is `'-5C` there. `--raw`, JSON
Lines and Parquet leave it as it is; use one of these to join tables by name. Numbers are never changed.

With `results_csv = true`, the daemon keeps `results.csv` in the root: a line for each result that is done, in the order
in which they ended, with the columns below and `probabilities`, a JSON object. Its lines are whole and none is there
twice, also after a kill or a power cut. Results that were there before come first. Rows that you add or remove stay so.
If you change the first line, or save the file in another form, it is renamed to `results.csv-not-ours-1` and written
anew, with all results that are still in `outputs/`; also when it is gone.

With `sort_by_label = "link"` or `"copy"`, each picture also appears as `outputs/by-label/LABEL/NAME`: below its most
probable label, or each label that a multi-label answer found. Characters that Windows does not take in names become
`_`, and a folder whose name so differs from its label ends with `~` and six digits. A link is the same file as the
picture in `outputs/`; a copy may be changed. Removing a result does not remove its picture here, nor the other way
round; the space of a link is free when both are removed.

| column | type | what it is |
| --- | --- | --- |
"""


def configuration() -> str:
    """docs/configuration.md."""
    parts = [_CONFIGURATION]
    for field in msgspec.structs.fields(Settings):
        described, rules = _rules(field.type)
        if field.default is msgspec.NODEFAULT:
            where = "none by default; in `fluxdrop.toml` only"
        elif isinstance(field.default, msgspec.Struct):
            where = "empty by default; in `fluxdrop.toml` only"
        else:
            default = json.dumps(field.default)
            where = f"default `{default}`; variable `{PREFIX}{field.name.upper()}`"
        parts.append(
            f"## `{field.name}`\n\n{described[0].upper()}{described[1:]}. {rules}; {where}.\n\n"
        )
    return "".join(parts).rstrip() + "\n"


def _rules(annotation: Any) -> tuple[str, str]:
    """What a setting is for, and which values it takes."""
    kind, *metas = get_args(annotation)
    if get_origin(kind) is dict:
        # A page may link to its neighbours, but not as the README does.
        return metas[-1].description.replace("(docs/", "("), "A table for each"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return metas[-1].description.replace("(docs/", "("), "A table"
    if get_origin(kind) is list:
        return metas[-1].description, "A list of strings"
    if get_origin(kind) is Union:
        # A word, or a number within bounds.
        word, number = get_args(kind)
        return metas[
            -1
        ].description, f"`{get_args(word)[0]}`, or {_bounded(*get_args(number)).lower()}"
    if get_origin(kind) is not None and metas and get_args(kind) and not _is_literal(kind):
        kind, *inner = get_args(kind)
        metas = [*inner, *metas]
    described = next(meta.description for meta in reversed(metas) if meta.description)
    if _is_literal(kind):
        return described, "One of " + ", ".join(f"`{value}`" for value in get_args(kind))
    return described, _bounded(kind, *metas)


def _bounded(kind: type, *metas: Any) -> str:
    """Which values of the type *kind* a setting takes."""
    names = {str: "A string", int: "A whole number", float: "A number", bool: "`true` or `false`"}
    bounds = []
    for meta in metas:
        for key, words in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
            value = getattr(meta, key)
            if value is not None:
                bounds.append(f"{words} {value:,}")
    return " ".join([names[kind], " and ".join(bounds)]).rstrip()


def _is_literal(kind: Any) -> bool:
    return "Literal" in str(get_origin(kind))


def results() -> str:
    """docs/results.md."""
    schema = json.loads(FILE.read_bytes())
    parts = [_RESULTS]
    for name, definition in schema["$defs"].items():
        described = _sentence(definition.get("description", "")).replace("``", "`")
        parts.append(f"## {name}\n\n{described}\n\n| field | type |\n| --- | --- |\n")
        for field, kind in definition["properties"].items():
            parts.append(f"| `{field}` | {_type(kind)} |\n")
        parts.append("\n")
    parts.append(_TABLES)
    for column in COLUMNS:
        kind = "integer" if column.kind == "seed" else column.kind
        parts.append(f"| `{column.name}` | {kind} | {column.meaning} |\n")
    return "".join(parts).rstrip() + "\n"


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _type(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(_type(one) for one in kind["anyOf"])
    if "enum" in kind:
        return " or ".join(f"`{json.dumps(value)}`" for value in kind["enum"])
    said = str(kind["type"])
    if said == "array":
        return f"array of {_type(kind['items'])}"
    if said == "object":
        return f"object of {_type(kind['additionalProperties'])}"
    bounds = [f"at least {kind['minimum']}"] if "minimum" in kind else []
    bounds += [f"at most {kind['maximum']}"] if "maximum" in kind else []
    extra = kind.get("description") or (f"`{kind['pattern']}`" if "pattern" in kind else "")
    return ", ".join([said, *filter(None, [extra, " and ".join(bounds)])])


PAGES = {"configuration.md": configuration, "results.md": results}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make())
