"""Graph files, the format in which the Julia worker reads a model; see docs/protocol.md, "Graph files"."""

from __future__ import annotations

import hashlib
import shutil
import struct
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAPH_MAGIC = b"FLUXDROP"
GRAPH_VERSION = 1
_ALIGNMENT = 64
_HEAD = struct.Struct("<8sIIQ")
_TYPES = {np.dtype("<f4"): "float32", np.dtype("<i8"): "int64"}

Attribute = int | float | str | Sequence[int] | Sequence[float]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph."""

    operator: str
    inputs: Sequence[str]
    """Names of values; an empty string for an optional input that is absent."""
    outputs: Sequence[str]
    """Names of values; an empty string for an optional output that is absent."""
    name: str
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """A whole model, with one input and one output."""

    input: str
    input_shape: Sequence[int]
    """Batch first; -1 is a dynamic dimension."""
    output: str
    nodes: list[Node] = field(default_factory=list)
    """In order of execution."""
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    """The constants by name: float32 or int64."""

    def producers(self) -> dict[str, Node]:
        """Return the node that computes each value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def readers(self) -> Counter[str]:
        """Return how often each value is read; the output is read once more, by whoever asked for it."""
        return Counter(name for node in self.nodes for name in node.inputs) + Counter([self.output])

    def to_bytes(self) -> bytes:
        """Return the graph file."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes | memoryview]:
        """Yield the graph file in parts; the tensors are not copied."""
        lines = [f"input {_quote(self.input)} float32 {_format_shape(self.input_shape)}"]
        blob: list[NDArray[Any]] = []
        size = 0
        for name, tensor in self.tensors.items():
            array = np.ascontiguousarray(tensor)
            shape = _format_shape(tensor.shape)
            lines.append(f"tensor {_quote(name)} {_TYPES[array.dtype]} {shape} {size}")
            blob.append(array)
            size += array.nbytes + -array.nbytes % _ALIGNMENT
        lines += [_format_node(node) for node in self.nodes]
        lines.append(f"output {_quote(self.output)}")
        header = "".join(f"{line}\n" for line in lines).encode()
        start = _HEAD.size + len(header)
        yield _HEAD.pack(GRAPH_MAGIC, GRAPH_VERSION, 0, len(header)) + header
        yield bytes(-start % _ALIGNMENT)
        for array in blob:
            yield array.reshape(-1).view(np.uint8).data
            yield bytes(-array.nbytes % _ALIGNMENT)


class GraphFile:
    """A graph file at *path*; the *folder* of a temporary one is removed with this object."""

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path.resolve()
        if folder is not None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def fixed_batch(self) -> int | None:
        """Return the only batch size that the model takes; None when it takes any."""
        with self.path.open("rb") as file:
            file.seek(_HEAD.size)
            size = file.readline().rsplit(b" ", 1)[1].split(b",")[0]
        return int(size) if size.strip().isdigit() else None

    def digest(self) -> str:
        """Return the file's SHA-256."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def write_temporary(graph: Graph) -> GraphFile:
    """Write *graph* to a temporary file.

    Raises:
        OSError: There is no place for it.
    """
    folder = Path(tempfile.mkdtemp(prefix="fluxdrop-"))
    made = GraphFile(folder / "model.graph", folder)
    with made.path.open("wb") as file:
        file.writelines(graph.parts())
    return made


def _format_node(node: Node) -> str:
    """Return the line of *node* in the header."""
    fields = [
        "node",
        _quote(node.operator),
        "in=" + ",".join(_quote(name) or "-" for name in node.inputs),
        "out=" + ",".join(_quote(name) or "-" for name in node.outputs),
        "name=" + _quote(node.name),
    ]
    fields += [f"{key}={_format_value(value)}" for key, value in sorted(node.attributes.items())]
    return " ".join(fields)


def _format_value(value: Attribute) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int | float):
        return repr(value)
    return _join(value)


def _format_shape(shape: Sequence[int]) -> str:
    return _join(shape) or "-"


def _join(values: Sequence[int] | Sequence[float]) -> str:
    return ",".join(repr(value) for value in values)


def _quote(text: str) -> str:
    """Percent-encode the bytes of *text* that are not printable ASCII, or that separate fields."""
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and chr(byte) not in "%=," else f"%{byte:02X}"
        for byte in text.encode()
    )
