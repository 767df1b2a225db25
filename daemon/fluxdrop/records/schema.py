"""The JSON Schema of results, made of the classes that write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from fluxdrop.records.result import Record

FILE = Path(__file__).with_name("result.schema.json")


def build() -> dict[str, Any]:
    """The schema as an object, JSON Schema draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fluxdrop result",
        **msgspec.json.schema(Record),
    }


def text() -> str:
    """The schema as it stands in the package."""
    return json.dumps(build(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
