# Activations and arithmetic.

"The activations that a layer before them can apply itself, by their names in Flux."
const ACTIVATIONS = Dict("Relu" => :relu, "Sigmoid" => :sigmoid, "Tanh" => :tanh)

for name in keys(ACTIVATIONS)
    operator(op -> Elementwise(getfield(op.L, ACTIVATIONS[name])), name)
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

operator(op -> bind(op, Elementwise(+)), "Add"; any_input=true)
operator(op -> bind(op, Elementwise(-)), "Sub"; any_input=true)
operator(op -> bind(op, Elementwise(*)), "Mul"; any_input=true)
operator(op -> bind(op, Elementwise(/)), "Div"; any_input=true)

"Operators that hand on what they get, at inference; they leave no layer behind."
const PASSES = ("Identity", "Dropout")

operator(op -> AlongAxis(op.L.softmax, int(op, "axis")), "Softmax")
operator(op -> AlongAxis(op.L.logsoftmax, int(op, "axis")), "LogSoftmax")
