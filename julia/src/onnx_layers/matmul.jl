# Matrix products.

export MatMul, Gemm

"""
ONNX's Gemm of two computed matrices: `σ.(α * B * A .+ β .* C)`. A product A * B in ONNX's row-major order is B * A in
Julia's order. `transpose_a` and `transpose_b` are transA and transB.
"""
struct Gemm{F}
    α::Float32
    β::Float32
    transpose_a::Bool
    transpose_b::Bool
    σ::F
end

function (p::Gemm)(a, b, c=nothing)
    y = maybe_transposed(b, p.transpose_b) * maybe_transposed(a, p.transpose_a)
    p.α == 1 || rmul!(y, p.α)
    c === nothing || (y = Elementwise(+)(y, p.β == 1 ? c : p.β .* c))
    return apply_activation(p.σ, y)
end

maybe_transposed(x, transposes) = transposes ? transpose(x) : x
apply_activation(σ, y) = σ === identity ? y : Elementwise(σ)(y)

"""
    MatMul(multiply, σ)

NumPy's matmul: (..., M, K) and (..., K, N) in ONNX's order are (K, M, ...) and (N, K, ...) here. Batch dimensions are
broadcast. `multiply` is the backend's `batched_mul`, and `σ` is applied to the result.
"""
struct MatMul{M,F}
    multiply::M
    σ::F
end

function (m::MatMul)(a, b)
    rows, columns = ndims(a) == 1 ? () : (size(a, 2),), ndims(b) == 1 ? () : (size(b, 1),)
    a = ndims(a) == 1 ? reshape(a, :, 1) : a
    b = ndims(b) == 1 ? reshape(b, 1, :) : b
    batch = broadcast_sizes(shape_of(a)[3:end], shape_of(b)[3:end])
    if length(b) == size(b, 1) * size(b, 2)
        # One matrix for all batches: one product.
        y = m.multiply(reshape(b, size(b, 1), size(b, 2), 1), reshape(a, size(a, 1), :, 1))
    else
        y = m.multiply(batch_matrices(b, batch), batch_matrices(a, batch))
    end
    return apply_activation(m.σ, reshape(y, (columns..., rows..., batch...)))
end

allocates_output(m::MatMul) = m.multiply === batched_mul

"`x` with all batch dimensions in the third one, and broadcast to `batch` unless it is a single matrix."
function batch_matrices(x, batch)
    matrices = length(x) == size(x, 1) * size(x, 2) ? x : broadcast_to(x, Int[size(x, 1); size(x, 2); batch])
    return reshape(matrices, size(x, 1), size(x, 2), :)
end
