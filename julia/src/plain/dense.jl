# Matrix products: Dense (Flux's src/layers/basic.jl) and batched_mul (NNlib's src/batched).

"""
    Dense(W, bias, σ = identity)

`σ.(W * x .+ bias)`: (in, ...) to (out, ...), where all dimensions but the first are batches.

`W` is (out, in); `bias` is a vector of length `out`, or `false`. Throws `DimensionMismatch` if sizes do not fit.
"""
struct Dense
    weight::Matrix{Float32}
    bias::Union{Vector{Float32},Bool}
    σ::Any
    function Dense(weight, bias, σ=identity)
        bias === false || length(bias) == size(weight, 1) ||
            throw(DimensionMismatch("$(length(bias)) biases for $(size(weight, 1)) outputs"))
        new(weight, bias, σ)
    end
end

function (d::Dense)(x::Array{Float32})
    out, width = size(d.weight)
    ndims(x) >= 1 && size(x, 1) == width ||
        throw(DimensionMismatch("$d expects size(input, 1) == $width, but got $(size(x))"))
    columns = length(x) ÷ max(1, width)
    y = acquire((out, columns))
    parallel_for(columns, length(d.weight) * columns) do _, items
        first, n = items[1] - 1, length(items)
        for column in items
            d.bias === false ? fill_range!(y, out * (column - 1), out) : copyto!(y, out * (column - 1) + 1, d.bias, 1, out)
        end
        GC.@preserve x y begin
            from, to = matrix_view(x, width * first, width, n), matrix_view(y, out * first, out, n)
            if n == 1
                BLAS.gemv!('N', 1.0f0, d.weight, vector_view(from), 1.0f0, vector_view(to))
            elseif width > 0
                BLAS.gemm!('N', 'N', 1.0f0, d.weight, from, 1.0f0, to)
            end
        end
        activate!(y, d.σ, out * first, out * n)
    end
    return reshape(y, out, size(x)[2:end]...)
end

allocates_output(::Dense) = true

function Base.show(io::IO, d::Dense)
    print(io, "Dense(", size(d.weight, 2), " => ", size(d.weight, 1))
    d.σ === identity || print(io, ", ", d.σ)
    d.bias === false && print(io, "; bias=false")
    print(io, ")")
end

"""
    batched_mul(A, B)

`A[:, :, k] * B[:, :, k]` for each `k`. If the third dimension of `A` or `B` is 1, that matrix is used for all `k`. Throws
`DimensionMismatch` if sizes do not fit.
"""
function batched_mul(A::Array{Float32,3}, B::Array{Float32,3})
    m, inner, a_count = size(A)
    _, n, b_count = size(B)
    size(B, 1) == inner && (a_count == b_count || a_count == 1 || b_count == 1) ||
        throw(DimensionMismatch("matrices of $(size(A)) and $(size(B)) have no product"))
    y = acquire((m, n, a_count == 1 ? b_count : a_count))
    inner == 0 && return fill!(y, 0)
    parallel_for(size(y, 3), length(y) * inner) do _, items
        for k in items .- 1
            GC.@preserve A B y BLAS.gemm!('N', 'N', 1.0f0,
                matrix_view(A, a_count == 1 ? 0 : k * m * inner, m, inner),
                matrix_view(B, b_count == 1 ? 0 : k * inner * n, inner, n),
                0.0f0, matrix_view(y, k * m * n, m, n))
        end
    end
    return y
end
