# Products of matrices.

"""
The general Gemm: `σ.(α * B * A .+ β .* C)`, for ONNX's row-major (M, K) is Julia's (K, M), and A * B there
is B * A here. `a_flips` and `b_flips` are transA and transB.
"""
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
