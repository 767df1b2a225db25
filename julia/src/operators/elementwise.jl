# Activations and arithmetic. Semantics are those of ONNX's operator reference.

const O = OnnxLayers

# One statement an operator: a loop over a table takes longer to compile than it runs.
from_backend(f::Symbol, name) = pointwise(op -> getfield(op.L, f), name)
from_backend(:relu, "Relu")
from_backend(:sigmoid, "Sigmoid")
from_backend(:tanh_fast, "Tanh")
from_backend(:softplus, "Softplus")
from_backend(:softsign, "Softsign")
from_backend(:mish, "Mish")
from_backend(:hardswish, "HardSwish")

with_alpha(f::Symbol, name) = pointwise(op -> Base.Fix2(getfield(op.L, f), float(op, "alpha")), name)
with_alpha(:leakyrelu, "LeakyRelu")
with_alpha(:elu, "Elu")
with_alpha(:celu, "Celu")

pointwise(op -> Selu(float(op, "alpha"), float(op, "gamma")), "Selu")
pointwise(op -> HardSigmoid(float(op, "alpha"), float(op, "beta")), "HardSigmoid")
pointwise(op -> ThresholdedRelu(float(op, "alpha")), "ThresholdedRelu")
pointwise(op -> float(op, "alpha") == 1 ? op.L.swish : Swish(op.L.sigmoid, float(op, "alpha")), "Swish")
pointwise("Gelu") do op
    text(op, "approximate") == "tanh" ? op.L.gelu :
        text(op, "approximate") == "none" ? O.gelu_erf : refuse(op, "'approximate' is tanh or none")
end

unary(@nospecialize(f), name) = pointwise(op -> f, name)
unary(abs, "Abs")
unary(-, "Neg")
unary(inv, "Reciprocal")
unary(exp, "Exp")
unary(O.square_root, "Sqrt")
unary(O.erf, "Erf")
unary(floor, "Floor")
unary(ceil, "Ceil")
unary(round, "Round")
unary(sign, "Sign")
unary(O.logical_not, "Not")
unary(isnan, "IsNaN")
unary(sinh, "Sinh")
unary(cosh, "Cosh")
unary(atan, "Atan")
unary(asinh, "Asinh")

not_negative(x) = x >= 0
from_one(x) = x >= 1
in_unit(x) = abs(x) <= 1
unary_on_domain(@nospecialize(f), @nospecialize(domain), name) = pointwise(op -> NaNOutside(f, domain), name)
unary_on_domain(log, not_negative, "Log")
unary_on_domain(sin, isfinite, "Sin")
unary_on_domain(cos, isfinite, "Cos")
unary_on_domain(tan, isfinite, "Tan")
unary_on_domain(asin, in_unit, "Asin")
unary_on_domain(acos, in_unit, "Acos")
unary_on_domain(atanh, in_unit, "Atanh")
unary_on_domain(acosh, from_one, "Acosh")

function clamp_of(op)
    low, high = optional_constant(op, 2), optional_constant(op, 3)
    all(v -> v === nothing || length(v) == 1, (low, high)) || refuse(op, "min and max have to be numbers")
    return Clamp(low === nothing ? -Inf32 : first(low), high === nothing ? Inf32 : first(high))
end

"The builder of Clip: an activation if the bounds are Float32 constants, and else a call of `clip`."
function clip_of(op)
    return all(i -> i === nothing || i isa Array{Float32}, op.inputs[2:end]) ? Elementwise(clamp_of(op)) :
        bind_constants(op, clip)
end

OPERATORS["Clip"] = Operator(clip_of, true, false, false, clamp_of)

# No operator of ONNX: the compiler makes it of the operators of quantised models.
pointwise("FakeQuantize") do op
    scale, zero, low, high = constant(op, 2), optional_constant(op, 3), constant(op, 4), constant(op, 5)
    all(v -> v === nothing || length(v) == 1, (scale, zero, low, high)) || refuse(op, "its constants have to be numbers")
    point = zero === nothing ? 0.0f0 : first(zero)
    O.fake_quantize(first(scale), first(low) - point, first(high) - point)
end

function broadcasting(@nospecialize(f), name)
    fused(op) = op.activation === nothing ? f : Composed(activation(op), f)
    operator(op -> bind_constants(op, Elementwise(fused(op))), name; any_input=true, fuses=true)
end
broadcasting(+, "Add")
broadcasting(-, "Sub")
broadcasting(*, "Mul")
broadcasting(O.quotient, "Div")
broadcasting(O.prelu, "PRelu")
broadcasting(O.logical_and, "And")
broadcasting(O.logical_or, "Or")
broadcasting(O.logical_xor, "Xor")
broadcasting(==, "Equal")
broadcasting(>, "Greater")
broadcasting(<, "Less")
broadcasting(>=, "GreaterOrEqual")
broadcasting(<=, "LessOrEqual")
broadcasting(O.select, "Where")

operator(op -> bind_constants(op, Elementwise(int(op, "fmod") == 0 ? mod : rem)), "Mod"; any_input=true)

operator("Pow"; any_input=true) do op
    exponent = op.inputs[2]
    exponent isa Array{Float32,0} || return bind_constants(op, Elementwise(O.power))
    Elementwise(exponent[] == 2 ? abs2 : exponent[] == 3 ? O.cube : exponent[] == 0.5 ? O.square_root :
                Base.Fix2(O.power, exponent[]))
end

variadic(@nospecialize(f), mean, name) = operator(op -> bind_constants(op, Variadic(f, mean)), name; any_input=true)
variadic(min, false, "Min")
variadic(max, false, "Max")
variadic(+, false, "Sum")
variadic(+, true, "Mean")

"Operators that return their input at inference. No layer is built for them."
const PASS_THROUGH = ("Identity", "Dropout")

# Dropout is built only if its second output, the mask, is read.
operator(op -> (x -> (x, Elementwise(isequal)(x, x))), "Dropout"; any_output=true)

"""
Element types by their number in ONNX's TensorProto.DataType, from 1; all floats are Float32, and `nothing` marks a
type that is not supported.
"""
const TYPES = Any[Float32, UInt8, Int8, UInt16, Int16, Int32, Int64, nothing, Bool, Float32, Float32, UInt32, UInt64]

operator("Cast") do op
    T = get(TYPES, int(op, "to"), nothing)
    T === nothing && refuse(op, "the type $(int(op, "to")) is not supported")
    Elementwise(T === Float32 ? Float32 : T === Bool ? O.as_bool : ToInteger{T}())
end

"""
`along` on the node's axis. Before opset 13 it ran over all dimensions from the axis on, which the compiler marks with
`coerce`.
"""
function normalising(along, op)
    # A matrix that is cut before the axis has the axis in its last dimension, ONNX's axis -1.
    int(op, "coerce", 0) == 0 ? AlongAxis(along, int(op, "axis")) : Coerced2D(AlongAxis(along, -1), int(op, "axis"))
end

operator(op -> normalising(op.L.softmax, op), "Softmax")
operator(op -> normalising(op.L.logsoftmax, op), "LogSoftmax")
operator(op -> normalising(O.hardmax, op), "Hardmax")
