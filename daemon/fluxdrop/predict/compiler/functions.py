"""Replace operators by the functions of other operators by which ONNX defines them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onnx import FunctionProto, ModelProto, NodeProto, TypeProto, defs, helper, inliner

from fluxdrop.predict.compiler.shapes import known_types

_DOMAIN = "fluxdrop.functions"


def has_function(operator: str, opset: int) -> bool:
    """Return whether ONNX defines *operator*, of version *opset*, by a function of other operators."""
    if not defs.has(operator, opset):
        return False
    schema: Any = defs.get_schema(operator, opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def inline_functions(model: ModelProto, operators: Iterable[str], opset: int) -> ModelProto:
    """Return *model*, of version *opset* and with its shapes inferred, with nodes of *operators* replaced.

    *model* itself is changed. A node whose function needs a type that is not known is kept.
    """
    wanted = set(operators)
    types = known_types(model)
    for index, node in enumerate(model.graph.node):
        if node.domain not in ("", "ai.onnx") or node.op_type not in wanted:
            continue
        _add_defaults(node, opset)
        function = _function_of(node, opset, types)
        if function is not None:
            # A function may depend on its node, so each node has one of its own.
            function.domain, function.name = _DOMAIN, f"{node.op_type}_{index}"
            node.domain, node.op_type = function.domain, function.name
            model.functions.append(function)
    model.opset_import.add(domain=_DOMAIN, version=1)
    # The inliner looks up the types of constants there, too.
    constants = {item.name for item in model.graph.initializer}
    model.graph.value_info.extend(
        helper.make_value_info(name, kind) for name, kind in types.items() if name in constants
    )
    inlined = inliner.inline_local_functions(model, convert_version=True)
    imports = [item for item in inlined.opset_import if item.domain != _DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(imports)
    return inlined


def _add_defaults(node: NodeProto, opset: int) -> None:
    """Add the attributes that *node* leaves to their defaults, which its function would not know."""
    given = {item.name for item in node.attribute}
    for name, attribute in defs.get_schema(node.op_type, opset).attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _function_of(node: NodeProto, opset: int, types: dict[str, TypeProto]) -> FunctionProto | None:
    """Return the function that computes *node*; None if there is none for its types."""
    schema: Any = defs.get_schema(node.op_type, opset)
    fixed = [version for version in schema.function_opset_versions if version <= opset]
    if fixed:
        data = schema.get_function_with_opset_version(max(fixed))
    else:
        versions = schema.context_dependent_function_opset_versions
        versions = [version for version in versions if version <= opset]
        known = [types.get(name) for name in node.input]
        is_known = all(kind or not name for name, kind in zip(node.input, known, strict=True))
        if not versions or not is_known:
            return None
        data = schema.get_context_dependent_function_with_opset_version(
            max(versions),
            node.SerializeToString(),
            [(kind or TypeProto()).SerializeToString() for kind in known],
        )
    return FunctionProto.FromString(data) if data else None
