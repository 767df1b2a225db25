"""The JSON Schema of records, generated from their classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from fluxdrop.records.result import Record

FILE = Path(__file__).with_name("result.schema.json")


def build() -> dict[str, Any]:
    """Return the schema (JSON Schema draft 2020-12) as an object."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fluxdrop result",
        **msgspec.json.schema(Record),
    }


def text() -> str:
    """Return the schema as the text of `FILE`."""
    return json.dumps(build(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
