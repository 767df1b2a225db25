"""Follow a graph of ComfyUI from a conditioning to the text that it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fluxdrop.generate.metadata.graph import Graph, Node

# Nodes that encode several texts for several encoders: the one that says most.
_ENCODED = (
    "populated_text",
    "text",
    "t5xxl",
    "text_g",
    "clip_g",
    "user_prompt",
    "prompt",
    "clip_l",
    "text_l",
    "mt5xl",
    "bert",
)
_SECOND = {"text_g": "text_l"}
_STRINGS = ("populated_text", "text", "string", "value", "prompt", "STRING", "text_0")
_JOINING = re.compile(r"concat|join|combine|append", re.IGNORECASE)
_TEXT_INPUT = re.compile(r"(?:text|string|prompt|str)_?(?:\d+|[a-z])?", re.IGNORECASE)
_STYLED = re.compile(r"(?:text|prompt)_?(positive|negative)|(positive|negative)_?(?:prompt|text)?")
# A node with such an input writes a text, from a picture or with a language model.
_WRITING = {"model", "model_name", "url", "api_key", "temperature", "image", "images", "llm"}
# A node with such a name changes the text that it is given. Where it does not say to what, the text is not known.
_CHANGING = re.compile(
    r"replace|regex|substring|extract|case|trim|strip|split|slice|remove|truncate|translat|expan[ds]"
    r"|style|csv|llm|llama|gpt|generat|enhance|random|wildcard|shuffle|format|template",
    re.IGNORECASE,
)
# Of the nodes of comfy_extras/nodes_string.py, by mode
_CASES: dict[str, Callable[[str], str]] = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}
_TRIMS: dict[str, Callable[[str], str]] = {
    "Both": str.strip,
    "Left": str.lstrip,
    "Right": str.rstrip,
}
_MAX_DEPTH = 200
_MAX_LENGTH = 64 * 1024


class Texts:
    """Finds the texts of conditionings in *graph*."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._steps = 0
        self.guidance: float | None = None
        """FLUX's distilled guidance, where a node on the way sets it."""
        self.passed: dict[str, None] = {}
        """The kinds of nodes on the way whose effect infotext cannot express."""
        self.combines = False
        """Whether conditionings were combined, with ``AND`` between their texts."""
        self.lost_at = ""
        """Where the way ended, for an error."""

    def conditioning(self, node: Node, key: str) -> str | None:
        """Return the text of the conditioning to which the input *key* of *node* is linked; None if it is not found."""
        wanted = "negative" if key == "negative" else "positive"
        return self._conditioning(node.inputs.get(key), wanted, 0)

    def _conditioning(self, link: Any, wanted: str, depth: int) -> str | None:
        node = self._enter(link, depth)
        if node is None:
            return None
        inputs = node.inputs
        if isinstance(guidance := self._graph.value(node, "guidance"), int | float):
            self.guidance = self.guidance if self.guidance is not None else float(guidance)
        if node.kind == "ConditioningZeroOut":
            return ""
        if "conditioning_1" in inputs and "conditioning_2" in inputs:
            self.combines = True
            return self._both(node, ("conditioning_1", "conditioning_2"), " AND ", wanted, depth)
        if "conditioning_to" in inputs and "conditioning_from" in inputs:
            if node.kind == "ConditioningConcat":
                keys = ("conditioning_to", "conditioning_from")
                return self._both(node, keys, " BREAK ", wanted, depth)
            self.passed[node.kind] = None
            return self._conditioning(inputs["conditioning_to"], wanted, depth + 1)
        if "positive" in inputs and "negative" in inputs:
            # Such a node has an output for each: ControlNetApplyAdvanced, or a loader that encodes texts.
            if isinstance(text := inputs[wanted], str):
                return text
            self.passed[node.kind] = None
            return self._conditioning(inputs[wanted], wanted, depth + 1)
        if "conditioning" in inputs:
            if node.kind not in ("FluxGuidance", "Reroute"):
                self.passed[node.kind] = None
            return self._conditioning(inputs["conditioning"], wanted, depth + 1)
        encoded = [key for key in _ENCODED if key in inputs]
        if "populated_text" not in inputs and _CHANGING.search(node.kind):
            self.lost_at = f"{node.kind} ({node.id}) changes the text"
            return None
        for key in encoded:
            text = self._text(inputs[key], wanted, depth + 1)
            if text is None:
                return None
            if text:
                return self._with_second(node, key, text, wanted, depth)
        if encoded:
            return ""
        links = [value for value in inputs.values() if self._graph.target(value)]
        if len(links) == 1:
            return self._conditioning(links[0], wanted, depth + 1)
        self.lost_at = f"{node.kind} ({node.id}) is not known"
        return None

    def _both(
        self, node: Node, keys: tuple[str, str], between: str, wanted: str, depth: int
    ) -> str | None:
        """Return the texts of two conditionings, one behind the other; None if one is not found."""
        texts = []
        for key in keys:
            text = self._conditioning(node.inputs[key], wanted, depth + 1)
            if text is None:
                return None
            texts.append(text)
        return self._joined(texts, between)

    def _joined(self, texts: list[str], between: str) -> str | None:
        """Return *texts* in one, without empty ones; None if it is too long."""
        if sum(map(len, texts)) > _MAX_LENGTH:
            self.lost_at = "the text is too long"
            return None
        return between.join(text for text in texts if text)

    def _with_second(self, node: Node, key: str, text: str, wanted: str, depth: int) -> str:
        """Return *text* of the encoder's input *key*; note another text of a second encoder."""
        second = _SECOND.get(key)
        other = self._text(node.inputs.get(second), wanted, depth + 1) if second else None
        if other and other != text:
            self.passed[f"{node.kind} ({second}: {other[:80]})"] = None
        return text

    def _text(self, value: Any, wanted: str, depth: int) -> str | None:
        """Return the text that an input's *value* is, or that it is linked to."""
        if isinstance(value, str):
            return value
        node = self._enter(value, depth)
        if node is None:
            return None
        inputs = node.inputs
        if _WRITING & inputs.keys():
            self.lost_at = f"{node.kind} writes its own"
            return None
        if isinstance(populated := inputs.get("populated_text"), str):
            return populated
        if node.kind in ("StringReplace", "CaseConverter", "StringTrim"):
            return self._changed(node, wanted, depth)
        if _CHANGING.search(node.kind):
            self.lost_at = f"{node.kind} ({node.id}) changes the text"
            return None
        # Styling nodes have an output for the prompt and one for the negative prompt.
        for key, given in inputs.items():
            match = _STYLED.fullmatch(key)
            if match and (match[1] or match[2]) == wanted:
                return self._text(given, wanted, depth + 1)
        if _JOINING.search(node.kind):
            texts = []
            for key, given in inputs.items():
                if _TEXT_INPUT.fullmatch(key):
                    text = self._text(given, wanted, depth + 1)
                    if text is None:
                        return None
                    texts.append(text)
            delimiter = inputs.get("delimiter")
            return self._joined(texts, delimiter if isinstance(delimiter, str) else " ")
        given_keys = {key for key, given in inputs.items() if given not in (None, "")}
        strings = [key for key in _STRINGS if key in inputs]
        if strings and given_keys - {*strings[:1], "text_0"}:
            # Who knows what it does with its text.
            self.lost_at = f"{node.kind} ({node.id}) is not known"
            return None
        for key in strings:
            if (text := self._text(inputs[key], wanted, depth + 1)) is not None:
                if key == "text_0":
                    self.passed[f"{node.kind} (the text that it showed is used)"] = None
                return text
        only = next(iter(inputs.values())) if len(inputs) == 1 else None
        if isinstance(only, str | list):
            return self._text(only, wanted, depth + 1)
        self.lost_at = f"{node.kind} ({node.id}) is not known"
        return None

    def _changed(self, node: Node, wanted: str, depth: int) -> str | None:
        """Return the text of a node whose change is known; None if its text or the change is not."""
        text = self._text(node.inputs.get("string"), wanted, depth + 1)
        if text is None:
            return None
        if node.kind == "StringReplace":
            pair = [
                self._text(node.inputs.get(key), wanted, depth + 1) for key in ("find", "replace")
            ]
            if pair[0] is None or pair[1] is None:
                return None
            return self._joined([text.replace(pair[0], pair[1])], "")
        change = (_CASES | _TRIMS).get(str(node.inputs.get("mode")))
        if change is None:
            self.lost_at = f"{node.kind} ({node.id}) changes the text"
            return None
        return change(text)

    def _enter(self, link: Any, depth: int) -> Node | None:
        """Return the node to which *link* leads; None if it is no link, or too many were followed, as in a cycle."""
        self._steps += 1
        if depth > _MAX_DEPTH or self._steps > 10 * _MAX_DEPTH:
            self.lost_at = "it goes in a circle, or is too long"
            return None
        node = self._graph.target(link)
        if node is None:
            self.lost_at = "a link leads nowhere"
        return node
