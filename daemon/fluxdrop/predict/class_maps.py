"""Class maps: the ZipMap at the end of a model, which turns each row of numbers into a dictionary by label.

skl2onnx writes one, and so did Custom Vision. onnxruntime returns the dictionary sorted by its keys, so the order of
the numbers says nothing: only the node's own list of labels does. See
https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

ClassNames = list[str] | list[int]

TAKE_THE_LABELS = "Leave out the labels, which are in the model."


def class_names(model: ModelProto, output: str) -> ClassNames | None:
    """Return the labels of the class map whose output is *output*, in the order of its input's numbers.

    None when *output* is not that of a class map.

    Raises:
        ValueError: The node does not say its labels.
    """
    from onnx import helper

    for node in model.graph.node:
        if node.op_type != "ZipMap" or output not in node.output:
            continue
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        strings = attributes.get("classlabels_strings")
        if strings:
            return [name.decode("utf-8", "replace") for name in strings]
        numbers = attributes.get("classlabels_int64s")
        if not numbers:
            raise ValueError(f"the ZipMap of its output {output} has no labels")
        return [int(number) for number in numbers]
    return None


def class_order(model: ModelProto, output: str, labels: list[str]) -> list[int]:
    """Return where each of *labels* is in the tensor of the class map *output*; without labels, all in its order.

    Raises:
        ValueError: There is no such class map, it has no labels, or others than *labels*.
    """
    names = class_names(model, output)
    if names is None:
        raise ValueError(f"its output {output} is a sequence of maps that no ZipMap makes")
    return order_of(names, labels) if labels else list(range(len(names)))


def order_of(names: ClassNames, labels: list[str]) -> list[int]:
    """Return where in *names* each of *labels* is.

    Labels that are other names of classes that are numbers have these in the order of *names*.

    Raises:
        ValueError: *labels* are neither; the message says which names the model has.
    """
    own = [str(name) for name in names]
    if sorted(own) == sorted(labels):
        return [own.index(label) for label in labels]
    if len(own) == len(labels) and all(isinstance(name, int) for name in names):
        return list(range(len(own)))
    shown = ", ".join(own[:10]) + (", ..." if len(own) > 10 else "")
    raise ValueError(f"its own labels are {shown}, and the labels given are others")
