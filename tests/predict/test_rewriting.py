"""Operators that the worker does not have as operators that it has: the numbers stay those of onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, parser

from fluxdrop.errors import FluxdropError
from fluxdrop.predict.compiler.lower import lower
from fluxdrop.predict.compiler.source import normal_form
from fluxdrop.telemetry import import_onnxruntime
from support.graph_files import bundle_of, model_of, node, refusal

_RANDOM = np.random.default_rng(20)

MICROSOFT = {
    "Gelu": "y = com.microsoft.Gelu(x)",
    "FastGelu": "y = com.microsoft.FastGelu(x, b)",
    "BiasGelu": "y = com.microsoft.BiasGelu(x, b)",
    "QuickGelu": "y = com.microsoft.QuickGelu<alpha = 1.702>(x)",
    "SkipLayerNormalization": """
        n, , , s = com.microsoft.SkipLayerNormalization<epsilon = 0.01>(x, x, b, b, b)
        y = Add(n, s)""",
    "SkipSimplifiedLayerNormalization": """
        y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 0.01>(x, x, b, b)""",
    "FusedGemm": """
        shape = Constant<value_ints = [-1, 8]>()
        r = Reshape(x, shape)
        y = com.microsoft.FusedGemm<transB = 1, activation = "LeakyRelu", activation_alpha = 0.3>(r, w, b)""",
    "FusedMatMul": "y = com.microsoft.FusedMatMul<alpha = 0.5, transB = 1>(x, w)",
    "FusedMatMul of batches": """
        y = com.microsoft.FusedMatMul<transBatchA = 1, transBatchB = 1, transB = 1>(x, x)""",
    "MultiHeadAttention": "y = com.microsoft.MultiHeadAttention<num_heads = 2>(x, x, x, bbb)",
    "Attention": "y = com.microsoft.Attention<num_heads = 4>(x, www, bbb)",
}


def parsed(body: str, opset: int = 17) -> ModelProto:
    """A model of x of [N, 6, 8] to y, with weights b of 8, w of 8 x 8, and three of each joined."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>
        g (float[N, 6, 8] x) => (float y) {{ {body} }}"""
    )
    for name, shape in {"b": (8,), "w": (8, 8), "bbb": (24,), "www": (8, 24)}.items():
        numbers = (_RANDOM.standard_normal(shape) / 2).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(numbers, name))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4
    session = import_onnxruntime().InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def rewritten(model: ModelProto) -> list[str]:
    """The operators of the normal form of *model*, which computes what onnxruntime does with *model* itself."""
    changed = normal_form(model)
    shape = [item.dim_value or 3 for item in model.graph.input[0].type.tensor_type.shape.dim]
    x = _RANDOM.standard_normal(shape).astype(np.float32)
    expected, found = run(model, x), run(changed, x)
    assert expected.shape == found.shape
    assert np.allclose(expected, found, rtol=1e-4, atol=1e-5)
    return [item.operator for item in lower(changed).nodes]


@pytest.mark.parametrize("name", MICROSOFT)
def test_microsoft(name: str) -> None:
    """An operator of onnxruntime's own runs as a combination of ONNX's."""
    assert rewritten(parsed(MICROSOFT[name]))


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", ""),
        ("LeakyRelu", ", activation_params = [0.2]"),
        ("Clip", ", activation_params = [-0.5, 0.5]"),
        ("HardSigmoid", ", activation_params = [0.3, 0.4]"),
    ],
)
def test_fused_conv(activation: str, parameters: str) -> None:
    """A FusedConv of onnxruntime is a convolution, the sum with its fourth input, and its activation."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[N, 4, 6, 5] x) => (float[N, 2, 4, 3] y)
        <int64[4] sizes = {{2, 4, 3, 3}}, float[2] b = {{0.1, -0.2}}> {{
            k = ConstantOfShape<value = float[1] {{0.25}}>(sizes)
            z = Conv(x, k)
            y = com.microsoft.FusedConv<activation = "{activation}"{parameters}>(x, k, b, z)
        }}"""
    )

    operators = rewritten(model)

    assert ["Conv", "Conv", "Add"] == operators[:3]
    assert activation in operators


def test_optimised_by_onnxruntime(tmp_path: Path) -> None:
    """What onnxruntime's extended optimiser writes, with operators of its own, is taken."""
    model = parsed(
        """
        h = MatMul(x, w)
        g = Add(h, b)
        half = Constant<value_float = 0.5>()
        one = Constant<value_float = 1.0>()
        root = Constant<value_float = 1.4142135>()
        d = Div(g, root)
        e = Erf(d)
        p = Add(e, one)
        q = Mul(g, p)
        a = Mul(q, half)
        s = Add(x, a)
        n = LayerNormalization<axis = -1>(s, b, b)
        t = Transpose<perm = [0, 2, 1]>(n)
        y = MatMul(t, n)"""
    )
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")

    assert {"com.microsoft"} <= {item.domain for item in optimised.graph.node}
    assert rewritten(optimised)


@pytest.mark.parametrize("is_expanded", [False, True])
def test_attention(is_expanded: bool) -> None:
    """Attention as torch exports it is two products and a softmax; a mask that hides nothing is dropped, and no
    shape is computed."""
    mask = ', "all"' if is_expanded else ""
    body = f"""
        heads = Constant<value_ints = [0, 6, 2, 4]>()
        r = Reshape(x, heads)
        q = Transpose<perm = [0, 2, 1, 3]>(r)
        size = Shape<start = 0, end = 1>(x)
        rest = Constant<value_ints = [1, 6, 6]>()
        sizes = Concat<axis = 0>(size, rest)
        one = Constant<value = bool[1, 1, 1, 6] {{1, 1, 1, 1, 1, 1}}>()
        all = Expand(one, sizes)
        y = Attention<scale = 0.4>(q, q, q{mask.replace('"', "")})"""

    operators = rewritten(parsed(body, opset=23))

    assert sorted([*["Transpose"] * 2, "Reshape", "Mul", "MatMul", "Softmax", "MatMul"]) == sorted(
        operator for operator in operators if operator != "Identity"
    )


@pytest.mark.parametrize(
    "attributes",
    [
        "q_num_heads = 2, kv_num_heads = 2, is_causal = 1",
        "q_num_heads = 4, kv_num_heads = 4, softcap = 2.0",
    ],
)
def test_attention_of_three_dimensions(attributes: str) -> None:
    """Attention whose heads lie side by side, causal or with a softcap, needs no shapes either."""
    operators = rewritten(parsed(f"y = Attention<{attributes}>(x, x, x)", opset=23))

    assert "Shape" not in operators
    assert 1 == operators.count("Softmax")


def test_grouped_attention() -> None:
    """Attention with fewer keys' heads than queries' is what ONNX's own function makes of it."""
    body = """
        kv = MatMul(x, www)
        cut = Constant<value_ints = [4]>()
        zero = Constant<value_ints = [0]>()
        last = Constant<value_ints = [2]>()
        k = Slice(kv, zero, cut, last)
        y = Attention<q_num_heads = 4, kv_num_heads = 2>(x, k, k)"""

    assert "Attention" not in rewritten(parsed(body, opset=23))


@pytest.mark.parametrize("condition", ["big = Constant<value = bool {1}>()", "big = Less(zero, n)"])
def test_constant_if(condition: str) -> None:
    """An If whose condition is a constant, or becomes one, is the branch that it takes."""
    body = f"""
        zero = Constant<value_int = 0>()
        last = Shape<start = 2, end = 3>(x)
        n = Squeeze(last)
        {condition}
        y = If (big) <
            then_branch = a () => (float[N, 6, 8] yes) {{ yes = Relu(x) }},
            else_branch = c () => (float[N, 6, 8] no) {{ no = Tanh(x) }}
        >"""

    assert ["Relu"] == [name for name in rewritten(parsed(body)) if name != "Identity"]


def test_all_missing_operators_at_once(tmp_path: Path) -> None:
    """A refusal names each missing operator with one of its nodes, and the engine that takes the model."""
    model = model_of(
        node("Det", "x", output="d", name="first"),
        helper.make_node("NonZero", ["d"], ["n"], name="second"),
        node("Neg", "x", output="m"),
        node("Det", "m", output="e", name="third"),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        node("Flatten", "x", output="g"),
        helper.make_node("ReduceMean", ["f"], ["h"], keepdims=0),
        helper.make_node("ReduceMean", ["e"], ["i"], keepdims=0),
        helper.make_node("Slice", ["g", "zero", "two", "one"], ["j"]),
        helper.make_node("Sum", ["h", "i", "j"], ["y"]),
        constants={name: np.array([n]) for name, n in (("zero", 0), ("one", 1), ("two", 2))},
        shape=("N", 1, 6, 6),
    )

    error = refusal(bundle_of(tmp_path, model, size=(1, 6, 6)))

    assert "nodes first (Det), second (NonZero): these operators are not supported" in error.message
    assert "The engine onnxruntime runs it: --engine onnxruntime." == error.hint


def test_no_engine_at_all(tmp_path: Path) -> None:
    """Where onnxruntime does not take the model either, the refusal does not send there."""
    model = model_of(helper.make_node("Unheard", ["x"], ["y"], name="u", domain="of.mine"))
    model.opset_import.append(helper.make_opsetid("of.mine", 1))

    error = refusal(bundle_of(tmp_path, model))

    assert "node u (of.mine.Unheard): this operator is not supported" in error.message
    assert "cannot run it either" in error.hint


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            helper.make_node("LSTM", ["x", "w", "w"], ["y"], hidden_size=2, clip=1.0),
            "node LSTM_0 (LSTM): it has the attribute clip",
        ),
        (
            helper.make_node("Trilu", ["x", "k"], ["y"]),
            "node Trilu_0 (Trilu): its input 1 has to be a constant",
        ),
    ],
)
def test_what_an_operator_does_not_do(model: onnx.NodeProto, words: str) -> None:
    """A form of an operator that cannot be had is refused with the reason, not as an unknown operator."""
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 4]) for name in "xwk"]
    graph = helper.make_graph([model], "g", given, [helper.make_empty_tensor_value_info("y")])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    del whole.graph.input[1:]

    with pytest.raises(Exception, match=words.replace("(", r"\(").replace(")", r"\)")):
        lower(normal_form(whole))


def test_newer_opset_than_onnxruntime() -> None:
    """A model of an opset that onnxruntime does not know is brought to one that it does, if nothing in it changed."""
    model = parsed("y = SwiGLU(x, x)", opset=28)
    model.ir_version = 14

    changed = normal_form(model)

    x = _RANDOM.standard_normal((3, 6, 8)).astype(np.float32)
    assert np.allclose(run(changed, x), x * x / (1 + np.exp(-x)), atol=1e-5)


def test_output_without_input(tmp_path: Path) -> None:
    """A model whose answer is the same for each picture is refused."""
    model = model_of(node("Relu", "w"), constants={"w": np.ones((1, 1, 6, 8), np.float32)})

    with pytest.raises(FluxdropError, match="y does not depend on its input"):
        raise refusal(bundle_of(tmp_path, model))
