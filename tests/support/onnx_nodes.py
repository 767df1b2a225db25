"""onnx's own backend node tests as cases for an engine that takes one float32 tensor.

Each float32 input has its turn to be the one that is computed, with the others as constants, and
each output to be the one that is compared. float64 is float32 here, as in the compiler, and so are integers
where an operator has no float32 case. What has no input at all stands behind one of ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase

EXCLUDED_OPERATORS = {
    **dict.fromkeys(
        (
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
        "its result is random",
    ),
    **dict.fromkeys(
        (
            "BitCast",
            "BitShift",
            "BitwiseAnd",
            "BitwiseNot",
            "BitwiseOr",
            "BitwiseXor",
        ),
        "of the bits of integers",
    ),
    **dict.fromkeys(
        (
            "ConcatFromSequence",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ),
        "of sequences of tensors",
    ),
    **dict.fromkeys(
        ("Optional", "OptionalGetElement", "OptionalHasElement"),
        "of values that may be absent",
    ),
    **dict.fromkeys(
        (
            "RegexFullMatch",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
            "TfIdfVectorizer",
        ),
        "of strings",
    ),
    **dict.fromkeys(
        ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT"),
        "for sound",
    ),
    **dict.fromkeys(
        ("MaxRoiPool", "NonMaxSuppression", "RoiAlign"),
        "for detectors",
    ),
    **dict.fromkeys(
        ("LinearAttention", "TensorScatter"),
        "for language models, which keep a state between calls",
    ),
    "ImageDecoder": "pictures are decoded before the model",
}
"""The operators that no image classifier needs, and why not."""

MISSING_OPERATORS = {
    "DFT": "",
    "DeformConv": "",
    "Det": "",
    "If": "except where its condition is a constant",
    "Loop": "",
    "MaxUnpool": "",
    "NonZero": "",
    "Scan": "",
    "Unique": "",
}
"""The operators that the compiler refuses, each with what it takes of it after all."""

WITHOUT_CASES = {"ConvInteger", "GlobalLpPool", "MatMulInteger"}
"""The operators that fluxdrop has, and for which onnx has no case with a float32 input."""

OPERATORS = sorted(
    {
        schema.name
        for schema in onnx.defs.get_all_schemas()
        if schema.domain == "" and not schema.deprecated
    }
    - EXCLUDED_OPERATORS.keys()
    - MISSING_OPERATORS.keys()
    - WITHOUT_CASES
)
"""What the compiler and the worker promise to do: all other operators of ONNX's own domain."""


_TYPES = [
    np.dtype(name)
    for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
]


_ALSO_OF_FLOATS = ("Equal", "EyeLike", "Pad")
"""Operators of which some cases are of integers, and say the same of floats."""

_OF_TRUTHS = ("And", "Not", "Or", "Xor")
"""Operators of truth values, which a model in float32 makes of floats."""

_FIRST_AS_FLOAT = (*_OF_TRUTHS, "Trilu")
"""Operators without a float32 case, whose first input is the computed one."""


class Case(NamedTuple):
    """One model of one input and one output, with what goes in and what has to come out."""

    operator: str
    name: str
    model: onnx.ModelProto
    input: NDArray[np.float32]
    expected: NDArray[Any]


def collect(operators: Collection[str]) -> Iterator[Case]:
    """All cases of the *operators*, in the order of their names."""
    for case in _of_one_node(operators):
        assert case.model is not None
        assert case.data_sets is not None
        inputs, outputs = case.data_sets[0]
        yield from _cases(case.name, case.model, list(inputs), list(outputs))


def names() -> dict[str, set[str]]:
    """What onnx calls its cases of each of OPERATORS, those that are none of ours with them."""
    found: dict[str, set[str]] = {operator: set() for operator in OPERATORS}
    for case in _of_one_node(OPERATORS):
        assert case.model is not None
        found[case.model.graph.node[0].op_type].add(case.name)
    return found


def _of_one_node(operators: Collection[str]) -> Iterator[TestCase]:
    with warnings.catch_warnings():
        # Making onnx's expected values divides by zero on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    for case in sorted(found, key=lambda case: case.name):
        assert case.model is not None
        (node, *others) = case.model.graph.node
        if not others and node.op_type in operators and node.domain in ("", "ai.onnx"):
            yield case


def _cases(
    name: str, model: onnx.ModelProto, inputs: list[Any], outputs: list[Any]
) -> Iterator[Case]:
    (node,) = model.graph.node
    arrays = [_array(value) for value in inputs]
    wanted = [_array(value) for value in outputs]
    if node.op_type in _ALSO_OF_FLOATS and not any(_is_float(array) for array in arrays):
        arrays = [_as_float(array) for array in arrays]
    if node.op_type in _FIRST_AS_FLOAT and arrays[0] is not None:
        arrays[0] = arrays[0].astype(np.float32)
    if node.op_type in ("Constant", "ConstantOfShape"):
        yield from _behind_an_input(name, model, arrays, wanted)
        return
    # Bodies of functions (CastLike as a Cast) have inputs that their node does not read.
    names = [item.name for item in model.graph.input]
    computed = [
        at for at, array in enumerate(arrays) if _is_float(array) and names[at] in node.input
    ]
    if node.op_type == "Dropout":
        # Nothing is computed of its ratio, unless it is training.
        computed = computed[:1]
    if any(
        array is None and value is not None for array, value in zip(arrays, inputs, strict=True)
    ):
        # One of the others is of a type that no engine takes.
        return
    if node.op_type == "QLinearMatMul":
        # No model computes the scale of its first matrix, of which the compiler has to know the shape.
        computed = computed[1:]
    if node.op_type == "Attention":
        # Its inputs have their turns by and by: it has nine times the cases of any other operator.
        computed = computed[len(name) % len(computed) :][:1]
    for at in computed:
        for out, expected in enumerate(wanted):
            array = arrays[at]
            if expected is not None and array is not None:
                single = _single(model, at, arrays, out)
                label = f"{name}[{model.graph.input[at].name}->{model.graph.output[out].name}]"
                yield Case(node.op_type, label, single, array, expected)


def _behind_an_input(
    name: str,
    model: onnx.ModelProto,
    arrays: list[NDArray[Any] | None],
    wanted: list[NDArray[Any] | None],
) -> Iterator[Case]:
    """Constant as a summand, and ConstantOfShape of the shape of the input."""
    (node,) = model.graph.node
    expected = wanted[0]
    assert expected is not None
    single = onnx.ModelProto()
    single.CopyFrom(model)
    graph = single.graph
    if node.op_type == "Constant":
        array = np.ones(expected.shape, dtype=np.float32)
        graph.node.append(helper.make_node("Add", ["data", node.output[0]], ["sum"]))
        result, expected = "sum", expected + array
    else:
        shape = arrays[0]
        assert shape is not None
        array = np.ones([int(size) for size in shape], dtype=np.float32)
        graph.node.insert(0, helper.make_node("Shape", ["data"], [node.input[0]]))
        result = node.output[0]
    if array.size:
        free = [f"d{axis}" for axis in range(array.ndim)]
        del graph.input[:], graph.output[:]
        graph.input.append(helper.make_tensor_value_info("data", TensorProto.FLOAT, free))
        graph.output.append(helper.make_empty_tensor_value_info(result))
        yield Case(node.op_type, name, single, array, expected)


def _array(value: Any) -> NDArray[Any] | None:
    """The value as an array; None for what is no tensor of numbers that an engine could meet."""
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if not isinstance(value, np.ndarray | np.generic) or value.dtype not in _TYPES:
        return None
    array: NDArray[Any] = np.asarray(value)
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array


def _is_float(array: NDArray[Any] | None) -> bool:
    return array is not None and array.dtype == np.float32


def _as_float(array: NDArray[Any] | None) -> NDArray[Any] | None:
    """int32 data as float32; int64 says sizes and places, and stays."""
    return array.astype(np.float32) if array is not None and array.dtype == np.int32 else array


def _single(
    model: onnx.ModelProto, at: int, arrays: list[NDArray[Any] | None], out: int
) -> onnx.ModelProto:
    """*model* with only input *at* and output *out*, every other input being a constant."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    graph = single.graph
    names = [item.name for item in graph.input]
    constants = [
        numpy_helper.from_array(array, name)
        for index, (name, array) in enumerate(zip(names, arrays, strict=True))
        if index != at and array is not None
    ]
    array = arrays[at]
    assert array is not None
    output = graph.output[out].name
    # A known shape is a constant, and these operators would have nothing left to compute.
    free = graph.node[0].op_type == "Shape"
    shape = [f"d{axis}" for axis in range(array.ndim)] if free else array.shape
    del graph.input[:], graph.output[:]
    given = names[at]
    if graph.node[0].op_type in _OF_TRUTHS:
        given = "numbers"
        graph.node.insert(0, helper.make_node("Cast", [given], [names[at]], to=TensorProto.BOOL))
    graph.input.append(helper.make_tensor_value_info(given, TensorProto.FLOAT, shape))
    graph.output.append(helper.make_empty_tensor_value_info(output))
    graph.initializer.extend(constants)
    return single


EXCLUDED = {
    "test_dequantizelinear_blocked": "it is quantised in blocks",
    "test_quantizelinear_blocked_asymmetric": "it is quantised in blocks",
    "test_quantizelinear_blocked_symmetric": "it is quantised in blocks",
    "test_training_dropout": "what it drops is up to numpy's random numbers",
    "test_training_dropout_default": "what it drops is up to numpy's random numbers",
    "test_training_dropout_default_mask": "what it drops is up to numpy's random numbers",
    "test_training_dropout_mask": "what it drops is up to numpy's random numbers",
}


@cache
def cases() -> dict[str, list[Case]]:
    """All cases by their operator."""
    found: dict[str, list[Case]] = {name: [] for name in OPERATORS}
    for case in collect(OPERATORS):
        found[case.operator].append(case)
    return found
