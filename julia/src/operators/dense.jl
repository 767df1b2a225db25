# Products of matrices. ONNX's row-major (M, K) is Julia's (K, M): a batch of columns, as Flux has it,
# and A * B in ONNX is B * A here.

operator("Gemm"; computed=ANY_INPUTS, fuses=true) do op
    α, β = float(op, "alpha"), float(op, "beta")
    a_flips, b_flips = int(op, "transA") != 0, int(op, "transB") != 0
    c = length(op.inputs) >= 3 ? op.inputs[3] : nothing
    if op.inputs[1] === COMPUTED && op.inputs[2] isa Array && c !== COMPUTED && !a_flips
        weight = α .* matrix_of(op, b_flips)
        c === nothing && return op.L.Dense(weight, false, activation(op))
        bias = β .* constant(op, 3)
        size(bias, 1) in (1, size(weight, 1)) && length(bias) == size(bias, 1) &&
            return op.L.Dense(weight, ones(Float32, size(weight, 1)) .* vec(bias), activation(op))
    end
    bind(op, Product(α, β, a_flips, b_flips, activation(op)))
end

"The second input as Flux's (out, in)."
function matrix_of(op, flips)
    weight = constant(op, 2)
    ndims(weight) == 2 || refuse(op, "the weight has $(ndims(weight)) dimensions")
    return flips ? permutedims(weight) : weight
end

"The general Gemm: `σ.(α * B * A .+ β .* C)`, of which any input may be computed."
struct Product{F}
    α::Float32
    β::Float32
    a_flips::Bool
    b_flips::Bool
    σ::F
end

(p::Product)(a, b) = p.σ.(p.α .* (turned(b, p.b_flips) * turned(a, p.a_flips)))
(p::Product)(a, b, ::Nothing) = p(a, b)
(p::Product)(a, b, c) = p.σ.(p.α .* (turned(b, p.b_flips) * turned(a, p.a_flips)) .+ p.β .* c)

turned(x, flips) = flips ? permutedims(x) : x

Base.show(io::IO, p::Product) = print(io, "Product(", p.α, ", ", p.β, ", ", p.a_flips, ", ", p.b_flips, ", ", p.σ, ")")

operator("MatMul"; computed=ANY_INPUTS, fuses=true) do op
    op.inputs[1] === COMPUTED && op.inputs[2] isa Array{Float32,2} &&
        return op.L.Dense(op.inputs[2], false, activation(op))
    bind(op, Product(1, 0, false, false, activation(op)))
end
