# Activations and arithmetic.

"The activations that a layer before them can apply itself, by their names in Flux."
const ACTIVATIONS = Dict("Relu" => :relu, "Sigmoid" => :sigmoid, "Tanh" => :tanh)

for (name, f) in ACTIVATIONS
    operator(op -> Elementwise(getfield(op.L, f)), name)
end

operator("LeakyRelu") do op
    Elementwise(Base.Fix2(op.L.leakyrelu, float(op, "alpha")))
end

operator("Elu") do op
    Elementwise(Base.Fix2(op.L.elu, float(op, "alpha")))
end

operator("Clip") do op
    low, high = optional(op, 2), optional(op, 3)
    all(v -> v === nothing || length(v) == 1, (low, high)) || refuse(op, "min and max have to be numbers")
    Elementwise(Clamp(low === nothing ? -Inf32 : first(low), high === nothing ? Inf32 : first(high)))
end

struct Clamp
    low::Float32
    high::Float32
end

(c::Clamp)(x) = min(max(x, c.low), c.high)

for (name, f) in ("Add" => +, "Sub" => -, "Mul" => *, "Div" => /)
    operator(op -> bind(op, Elementwise(f)), name; computed=ANY_INPUTS)
end

"Operators that hand on what they get, at inference; they leave no layer behind."
const PASSES = ("Identity", "Dropout")

"Softmax along one of ONNX's axes."
struct AlongAxis{F}
    f::F
    axis::Int
end

(a::AlongAxis)(x) = a.f(x; dims=dimension(x, a.axis))
Base.show(io::IO, a::AlongAxis) = print(io, "AlongAxis(", a.f, ", ", a.axis, ")")

operator(op -> AlongAxis(op.L.softmax, int(op, "axis")), "Softmax")
operator(op -> AlongAxis(op.L.logsoftmax, int(op, "axis")), "LogSoftmax")
