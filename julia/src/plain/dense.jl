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
    columns = prod(size(x)[2:end])
    y = acquire((out, columns))
    cost = length(d.weight) * columns
    # OpenBLAS copies the weights for each share of the columns, and the columns for each share of the weights.
    if columns < out
        shares = min(cld(out, ROW_STEP), SHARES_PER_THREAD * threads_worth(cost))
        parallel_for(shares, cost) do _, items
            for item in items
                rows = multiple_range(out, shares, item, ROW_STEP)
                isempty(rows) || dense_block!(y, d, x, rows, 1:columns)
            end
        end
    else
        shares = clamp(columns ÷ SHARE_COLUMNS, SHARES_PER_THREAD * threads_worth(cost), columns)
        parallel_for(shares, cost) do _, items
            for item in items
                share = chunk_range(columns, shares, item) .+ 1
                isempty(share) || dense_block!(y, d, x, 1:out, share)
            end
        end
    end
    return reshape(y, out, size(x)[2:end]...)
end

"How many shares each thread computes at least, so that threads that others interrupt compute fewer."
const SHARES_PER_THREAD = 2

"How many columns a share has, if there are as many: enough to repay that OpenBLAS copies the weights for each share."
const SHARE_COLUMNS = 256

"Shares begin at a multiple of this number of rows, which OpenBLAS computes at once."
const ROW_STEP = 16

"Share number `i`, from 1, of `1:n` divided into `shares` that begin at multiples of `step`, plus 1."
function multiple_range(n, shares, i, step)
    length = cld(cld(n, shares), step) * step
    return length*(i-1)+1:min(n, length * i)
end

"Compute some rows and columns of the output matrix `y`."
function dense_block!(y, d, x, rows, columns)
    out, width = size(d.weight)
    start, count = first(rows) - 1, length(rows)
    for column in columns .- 1
        d.bias === false ? fill_range!(y, out * column + start, count) :
            copy_elements!(y, out * column + start + 1, d.bias, start + 1, count)
    end
    if width > 0
        GC.@preserve x begin
            from = matrix_view(x, width * (first(columns) - 1), width, length(columns))
            weight, to = view(d.weight, rows, :), view(y, rows, columns)
            if length(columns) == 1
                GC.@preserve y BLAS.gemv!('N', 1.0f0, weight, vector_view(from), 1.0f0,
                                          vector_view(matrix_view(y, out * (first(columns) - 1) + start, count, 1)))
            else
                BLAS.gemm!('N', 'N', 1.0f0, weight, from, 1.0f0, to)
            end
        end
    end
    for column in columns .- 1
        activate!(y, d.σ, out * column + start, count)
    end
    return nothing
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
