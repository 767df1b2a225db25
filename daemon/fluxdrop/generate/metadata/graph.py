"""A graph of ComfyUI: its nodes, their values and links. Nothing here follows a link twice, so a cycle ends."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_MAX_NODES = 10_000
_COMPUTING = re.compile(
    r"math|expression|operation|calc|random|aspect|ratio|swap|scale|switch", re.IGNORECASE
)
# The inputs in which nodes that only hold a value hold it.
_HELD = ("value", "int", "float", "number", "Number", "seed", "noise_seed", "string", "text")


class Node(NamedTuple):
    """A node."""

    id: str
    kind: str
    """Its ``class_type``."""
    inputs: Mapping[str, Any]

    @property
    def order(self) -> tuple[int, str]:
        """A key that sorts nodes by their ids, as numbers where they are such."""
        return (int(self.id) if self.id.isdecimal() and len(self.id) < 20 else 10**20, self.id)


class Graph:
    """The nodes of *data*; links to nodes that are not there count as no links."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._nodes = {
            str(key): Node(
                str(key),
                str(node.get("class_type")),
                node["inputs"] if isinstance(node.get("inputs"), dict) else {},
            )
            for key, node in list(data.items())[:_MAX_NODES]
        }

    def nodes(self) -> list[Node]:
        """Return all nodes, by id."""
        return sorted(self._nodes.values(), key=lambda node: node.order)

    def target(self, value: Any) -> Node | None:
        """Return the node to which the input's *value* is a link; None if it is not one."""
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            return self._nodes.get(str(value[0]))
        return None

    def link(self, node: Node, key: str) -> Node | None:
        """Return the node to which the input *key* is linked, if it is."""
        return self.target(node.inputs.get(key))

    def linked(self, node: Node) -> list[Node]:
        """Return the nodes to which *node*'s inputs are linked."""
        targets = (self.target(value) for value in node.inputs.values())
        return [target for target in targets if target is not None]

    def upstream(self, node: Node, seen: set[str] | None = None) -> Iterator[Node]:
        """Yield *node* and all that it depends on, the nearest first; nothing twice, nor what was *seen* before."""
        seen = set() if seen is None else seen
        if node.id in seen:
            return
        seen.add(node.id)
        queue = deque([node])
        while queue:
            node = queue.popleft()
            yield node
            for before in self.linked(node):
                if before.id not in seen:
                    seen.add(before.id)
                    queue.append(before)

    def value(self, node: Node, key: str) -> Any:
        """Return the value of the input *key*, also of one that is linked to a node that holds it; None if none.

        A node that computes its value holds none.
        """
        seen: set[tuple[str, str]] = set()
        while True:
            value = node.inputs.get(key)
            target = self.target(value)
            if target is None:
                return None if isinstance(value, list) else value
            if (target.id, key) in seen or _COMPUTING.search(target.kind):
                return None
            seen.add((target.id, key))
            held = [name for name in (key, *_HELD) if name in target.inputs]
            if not held and len(target.inputs) == 1:
                # A reroute, or a node that converts.
                held = list(target.inputs)
            if not held:
                return None
            if any(self.target(target.inputs[name]) for name in target.inputs if name != held[0]):
                # It depends on more than what it holds.
                return None
            node, key = target, held[0]
