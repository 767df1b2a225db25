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
    panels::Vector{Float32}  # the weights as multiply_weights! reads them; empty until the first call
    function Dense(weight, bias, σ=identity)
        bias === false || length(bias) == size(weight, 1) ||
            throw(DimensionMismatch("$(length(bias)) biases for $(size(weight, 1)) outputs"))
        new(weight, bias, σ, Float32[])
    end
end

function (d::Dense)(x::Array{Float32})
    out, width = size(d.weight)
    ndims(x) >= 1 && size(x, 1) == width ||
        throw(DimensionMismatch("$d expects size(input, 1) == $width, but got $(size(x))"))
    columns = prod(size(x)[2:end])
    y = acquire((out, columns))
    isempty(d.panels) && pack_weights!(d.panels, d.weight, out, width, d.bias)
    multiply_weights!(vec(y), vec(x), d.panels, d.σ, out, columns)
    return reshape(y, out, size(x)[2:end]...)
end

"""
    pack_weights!(panels, weight, out, width, bias)

Store the (out, width) `weight` of a linear layer, and its bias before it, as [`multiply_weights!`](@ref) reads them.
"""
function pack_weights!(panels, weight, out, width, bias)
    processor = PROCESSOR[]
    resize!(panels, panel_rows(out, processor) * (width + 1))
    pack_rows!(panels, 0, vec(weight), 0, out, out, width, bias === false ? zeros(Float32, out) : bias, processor)
    return nothing
end

"""
    multiply_weights!(y, x, panels, σ, out, columns)

Store the linear layer of `x`, (width, columns), in `y`, (out, columns). Threads share the columns, or the rows if there are few
columns.
"""
function multiply_weights!(y, x, panels, σ, out, columns)
    isempty(y) && return nothing
    processor = PROCESSOR[]
    width = length(x) ÷ columns
    cost = out * columns * (width + ELEMENT_COST)
    taps = panel_taps(width + 1, processor)
    row_shares, column_shares, step = divide_product(out, columns, width, threads_worth(cost), processor)
    parallel_for(row_shares * column_shares, cost, MOST_CHUNKS) do task, items
        for item in items .- 1
            rows = multiple_range(out, row_shares, item % row_shares + 1, 2 * step[1])
            share = multiple_range(columns, column_shares, item ÷ row_shares + 1, step[2])
            (isempty(rows) || isempty(share)) && continue
            multiply_block!(y, x, panels, taps, out, width, rows, share, task, processor)
            activate_block!(y, σ, out, rows, share)
        end
    end
    return nothing
end

"How many shares the rows and the columns of a product are divided into, and the numbers of rows and columns that panels have."
function divide_product(rows, columns, depth, threads, ::Processor{L,N}) where {L,N}
    row_shares, column_shares = 1, clamp(cld(columns * depth, SHARE_NUMBERS), 1, cld(columns, N))
    if threads > 1 && column_shares < 2threads
        columns >= 4 * threads * N ? (column_shares = SHARES_PER_THREAD * threads) :
            (row_shares = min(cld(rows, 2L), SHARES_PER_THREAD * threads))
    end
    return row_shares, column_shares, (L, N)
end

"How many shares each thread computes at least, so that threads that others interrupt compute fewer."
const SHARES_PER_THREAD = 2

"The numbers of a share of the columns at most, so that they stay in the cache."
const SHARE_NUMBERS = 1 << 15

"Compute some rows and columns, counted from 0, of the output matrix `y`."
function multiply_block!(y, x, panels, taps, out, width, rows, columns, task, processor::Processor{L}) where {L}
    depth, count = width + 1, length(columns)
    corner = panel_columns(count, processor) * depth
    buffer = workspace(task, corner + corner_length(processor))
    pack_columns!(buffer, 0, x, width * first(columns), width, width, count, ones(Float32, count), processor)
    GC.@preserve y panels taps buffer begin
        for row in first(rows):2L:last(rows)
            multiply_panels!(pointer(y, out * first(columns) + row + 1), out, pointer(panels, row * depth + 1), 0, pointer(taps),
                             pointer(buffer), min(2L, last(rows) - row + 1), count, depth, pointer(buffer, corner + 1), processor)
        end
    end
    return nothing
end

"Apply `σ` to some rows and columns, counted from 0, of the output matrix `y`."
function activate_block!(y, σ, out, rows, columns)
    σ === identity && return nothing
    if length(rows) == out
        activate!(y, σ, out * first(columns), out * length(columns))
    else
        for column in columns
            activate!(y, σ, out * column + first(rows), length(rows))
        end
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
    processor = PROCESSOR[]
    taps = panel_taps(inner, processor)
    cost = length(y) * (inner + ELEMENT_COST)
    shares = clamp(cld(SHARES_PER_THREAD * threads_worth(cost), size(y, 3)), 1, max(1, n ÷ 16))
    parallel_for(size(y, 3) * shares, cost, MOST_CHUNKS) do task, items
        for item in items .- 1
            k, share = divrem(item, shares)
            a, b = a_count == 1 ? 0 : k * m * inner, b_count == 1 ? 0 : k * inner * n
            multiply_matrices!(vec(y), m * n * k, vec(A), a, vec(B), b, m, inner, chunk_range(n, shares, share + 1), taps, task,
                               processor)
        end
    end
    return y
end

"Store the product of a matrix (m, inner) and some `columns` of a matrix, which begin at the offsets of `A` and `B`."
function multiply_matrices!(y, to, A, a, B, b, m, inner, columns, taps, task, processor::Processor{L}) where {L}
    rows, count = panel_rows(m, processor) * inner, length(columns)
    corner = rows + panel_columns(count, processor) * inner
    buffer = workspace(task, corner + corner_length(processor))
    pack_rows!(buffer, 0, A, a, m, m, inner, Float32[], processor)
    pack_columns!(buffer, rows, B, b + inner * first(columns), inner, inner, count, Float32[], processor)
    GC.@preserve y taps buffer multiply_panels!(
        pointer(y, to + m * first(columns) + 1), m, pointer(buffer), inner, pointer(taps), pointer(buffer, rows + 1), m, count,
        inner, pointer(buffer, corner + 1), processor)
    return nothing
end
