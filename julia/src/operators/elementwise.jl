# Activations and arithmetic. Semantics: the ONNX operator reference.

const O = OnnxLayers

"Operators of one input that is computed: a function of a number, which the layer before may apply itself."
const ACTIVATIONS = Dict{String,Function}()

function pointwise(@nospecialize(build), name::String)
    ACTIVATIONS[name] = build
    operator(op -> Elementwise(build(op)), name)
end

pointwise(op -> op.L.relu, "Relu")
pointwise(op -> op.L.sigmoid, "Sigmoid")
pointwise(op -> op.L.tanh_fast, "Tanh")
pointwise(op -> op.L.softplus, "Softplus")
pointwise(op -> op.L.softsign, "Softsign")
pointwise(op -> op.L.mish, "Mish")
pointwise(op -> op.L.hardswish, "HardSwish")
pointwise(op -> Base.Fix2(op.L.leakyrelu, float(op, "alpha")), "LeakyRelu")
pointwise(op -> Base.Fix2(op.L.elu, float(op, "alpha")), "Elu")
pointwise(op -> Base.Fix2(op.L.celu, float(op, "alpha")), "Celu")
pointwise(op -> Selu(float(op, "alpha"), float(op, "gamma")), "Selu")
pointwise(op -> HardSigmoid(float(op, "alpha"), float(op, "beta")), "HardSigmoid")
pointwise(op -> ThresholdedRelu(float(op, "alpha")), "ThresholdedRelu")
pointwise(op -> Swish(op.L.sigmoid, float(op, "alpha")), "Swish")
pointwise(op -> O.erf, "Erf")
pointwise("Gelu") do op
    word(op, "approximate") == "tanh" ? op.L.gelu :
        word(op, "approximate") == "none" ? O.gelu_erf : refuse(op, "'approximate' is tanh or none")
end

for (name, f) in ("Abs" => abs, "Neg" => -, "Reciprocal" => inv, "Exp" => exp, "Sqrt" => O.square_root, "Floor" => floor,
                  "Ceil" => ceil, "Round" => round, "Sign" => sign, "Not" => O.negation, "Sinh" => sinh, "Cosh" => cosh,
                  "Atan" => atan, "Asinh" => asinh)
    pointwise(op -> f, name)
end

in_unit(x) = abs(x) <= 1
for (name, f, real) in (("Log", log, >=(0)), ("Sin", sin, isfinite), ("Cos", cos, isfinite), ("Tan", tan, isfinite),
                        ("Asin", asin, in_unit), ("Acos", acos, in_unit), ("Atanh", atanh, in_unit), ("Acosh", acosh, >=(1)))
    pointwise(op -> Partial(f, real), name)
end

pointwise("Clip") do op
    low, high = optional(op, 2), optional(op, 3)
    all(v -> v === nothing || length(v) == 1, (low, high)) || refuse(op, "min and max have to be numbers")
    Clamp(low === nothing ? -Inf32 : first(low), high === nothing ? Inf32 : first(high))
end

# Bounds that are computed, or integers.
operator("Clip"; any_input=true) do op
    bounds = op.inputs[2:end]
    op.inputs[1] === COMPUTED && all(b -> b === nothing || b isa Array{Float32}, bounds) ?
        Elementwise(ACTIVATIONS["Clip"](op)) : bind(op, clip)
end

for (name, f) in ("Add" => +, "Sub" => -, "Mul" => *, "Div" => O.quotient, "PRelu" => O.prelu, "And" => O.both,
                  "Or" => O.either, "Xor" => O.one_of, "Equal" => ==, "Greater" => >, "Less" => <, "GreaterOrEqual" => >=,
                  "LessOrEqual" => <=, "Where" => O.choice)
    operator(op -> bind(op, Elementwise(f)), name; any_input=true)
end

operator(op -> bind(op, Elementwise(int(op, "fmod") == 0 ? mod : rem)), "Mod"; any_input=true)

"Functions for the exponents that models have, which take a power far more time."
const POWERS = Dict(0.5f0 => O.square_root, 1.0f0 => identity, 2.0f0 => abs2, 3.0f0 => O.cube)

operator("Pow"; any_input=true) do op
    exponent = op.inputs[2]
    exponent isa Array{Float32,0} && haskey(POWERS, exponent[]) ? Elementwise(POWERS[exponent[]]) : bind(op, Elementwise(O.power))
end

for (name, f, mean) in (("Min", min, false), ("Max", max, false), ("Sum", +, false), ("Mean", +, true))
    operator(op -> bind(op, Variadic(f, mean)), name; any_input=true)
end

"Operators that hand on what they get, at inference; they leave no layer behind."
const PASSES = ("Identity", "Dropout")

# Its mask is read, too.
operator(op -> (x -> (x, Elementwise(isequal)(x, x))), "Dropout"; any_output=true)

const INTEGERS = Dict(2 => UInt8, 3 => Int8, 4 => UInt16, 5 => Int16, 6 => Int32, 7 => Int64, 12 => UInt32, 13 => UInt64)

operator("Cast") do op
    type = int(op, "to")  # of ONNX's TensorProto.DataType
    type in (1, 10, 11, 16) && return Elementwise(Float32)
    type == 9 && return Elementwise(O.truth)
    Elementwise(ToInteger{get(() -> refuse(op, "the type $type is not supported"), INTEGERS, type)}())
end

for (name, f) in ("Softmax" => :softmax, "LogSoftmax" => :logsoftmax, "Hardmax" => nothing)
    operator(name) do op
        along = f === nothing ? O.hardmax : getfield(op.L, f)
        # Cut before the axis, the rest is one axis, the last.
        int(op, "coerce", 0) == 0 ? AlongAxis(along, int(op, "axis")) : Coerced(AlongAxis(along, -1), int(op, "axis"))
    end
end
