# Products of matrices whose operands are packed once: C = A * B.
#
# OpenBLAS copies both matrices in each call, into the order in which its innermost loop reads them. Here the weights are
# copied when a layer is called first, and the other matrix is written in that order to begin with.
#
# B is in panels of `N` columns, the last one or two of `N ÷ 3` if that suffices: a panel has the numbers of its first row,
# then those of the second, and so on. A is read by vectors of its rows: `taps` has an offset, in bytes, for each of its columns.

"""
The body of a kernel: after `zero`, add the `products` for each row of a panel of `N` columns at `b` and of each column of A, `from`
on; then `store` the sums, vectors of `L` numbers that begin as `nothing_yet`.
"""
kernel_body(L, N, zero, products, store) = quote
    nothing_yet = broadcast_lanes(0.0f0, Val($L))
    $zero
    for k in 1:depth
        from = a + unsafe_load(taps, k)
        $products
        b += $(4N)
    end
    $store
    return nothing
end

"""
    panel_method(L, M, N)

The definition of

    multiply_panel!(y, step, a, taps, b, depth, Val(L), Val(M), Val(N))

which stores the product of `M * L` rows of A at `a` and a panel of `N` columns at `b` in `y`, whose columns are `step`
numbers apart. `depth` is the length of the sums, which are in registers. It is no generated function, whose generator Julia 1.5
would compile at each start. It is inlined, as Julia 1.5 boxes the numbers that a precompiled package's functions give each
other (JuliaLang/julia#35972).
"""
function panel_method(L, M, N)
    zero, products, store = Expr(:block), Expr(:block), Expr(:block)
    for i in 0:M-1
        push!(products.args, :($(Symbol(:row_, i)) = load_lanes(from, $(L * i), Val($L))))
    end
    for j in 0:N-1
        push!(products.args, :(number = broadcast_lanes(unsafe_load(b, $(j + 1)), Val($L))))
        for i in 0:M-1
            sum = Symbol(:sum_, i, :_, j)
            push!(zero.args, :($sum = nothing_yet))
            push!(products.args, :($sum = mul_add($(Symbol(:row_, i)), number, $sum)))
            push!(store.args, :(store_lanes!(y, $j * step + $(L * i), $sum)))
        end
    end
    return quote
        @inline function multiply_panel!(y::Ptr{Float32}, step::Int, a::Ptr{Float32}, taps::Ptr{Int}, b::Ptr{Float32}, depth::Int,
                                 ::Val{$L}, ::Val{$M}, ::Val{$N})
            $(kernel_body(L, N, zero, products, store))
        end
    end
end

for (L, widths) in ((4, (2, 4, 6, 12)), (8, (2, 6)), (16, (4, 12))), M in 1:2, N in widths
    eval(panel_method(L, M, N))
end

"""
    rows_method(L, R, C, N)

The definition of

    multiply_rows!(y, step, a, taps, b, depth, Val(L), Val(R), Val(C), Val(N))

which does the same as `C` calls of [`multiply_panel!`](@ref) for the first `R` rows: a few rows that are left would fill little of a
vector, so these vectors are of columns. `L` is at least `N`.
"""
function rows_method(L, R, C, N)
    zero, products, store = Expr(:block, :(panel = $N * depth)), Expr(:block), Expr(:block)
    for c in 0:C-1
        push!(products.args, :(columns = load_lanes(b, $c * panel, Val($L))))
        for r in 0:R-1
            sum = Symbol(:sum_, r, :_, c)
            push!(zero.args, :($sum = nothing_yet))
            push!(products.args, :($sum = mul_add(broadcast_lanes(unsafe_load(from, $(r + 1)), Val($L)), columns, $sum)))
            for j in 0:N-1
                push!(store.args, :(unsafe_store!(y, $sum[$(j + 1)].value, $(r + 1) + $(c * N + j) * step)))
            end
        end
    end
    return quote
        @inline function multiply_rows!(y::Ptr{Float32}, step::Int, a::Ptr{Float32}, taps::Ptr{Int}, b::Ptr{Float32}, depth::Int,
                                ::Val{$L}, ::Val{$R}, ::Val{$C}, ::Val{$N})
            $(kernel_body(L, N, zero, products, store))
        end
    end
end

# Sums that depend on nothing but each other take a few cycles a step, so there are at least four of them.
for (L, N, most) in ((16, 12, 5), (8, 6, 2)), R in 1:most, C in (1, max(2, 4 ÷ R))
    eval(rows_method(L, R, C, N))
end

"""
    multiply_panels!(y, step, a, row_step, taps, b, rows, columns, depth, corner, processor)

Store the product of `rows` rows of A, `row_step` numbers apart, and `columns` columns in panels at `b` in `y`. `corner` has
room for a panel's product, where there are fewer rows or columns than it has. A is readable up to a multiple of `L` rows, and
B for [`SLACK`](@ref) numbers more than it has if `rows` is no multiple of `L`.
"""
function multiply_panels!(y, step, a, row_step, taps, b, rows, columns, depth, corner, processor)
    left = columns < panel_width(processor) ? 0 : rows_left(rows, processor)
    left == 0 && return multiply_whole_panels!(y, step, a, row_step, taps, b, rows, columns, depth, corner, processor)
    # Of no known type, so that Julia compiles only what is called.
    return multiply_panels!(Val(left), y, step, a, row_step, taps, b, rows, columns, depth, corner, processor)
end

"How many columns a wide panel has."
panel_width(::Processor{L,N}) where {L,N} = N

"How many of the last rows [`multiply_rows!`](@ref) computes."
rows_left(rows, ::Processor{16,12}) = rows % 16 <= 5 ? rows % 16 : 0
rows_left(rows, ::Processor{8,6}) = rows % 8 <= 2 ? rows % 8 : 0
rows_left(rows, ::Processor) = 0

"The last `R` rows by [`multiply_rows!`](@ref), in groups of panels, which are still in the cache."
function multiply_panels!(left::Val{R}, y, step, a, row_step, taps, b, rows, columns, depth, corner, processor::Processor{L,N}) where {R,L,N}
    whole, full, together = rows - R, columns ÷ N * N, max(2, 4 ÷ R)
    last_rows = a + 4 * (whole ÷ 2L * 2L * row_step + whole % 2L)
    for first in 0:together*N:full-1
        to, panels, count = y + 4 * first * step, b + 4 * first * depth, min(together * N, full - first)
        multiply_whole_panels!(to, step, a, row_step, taps, panels, whole, count, depth, corner, processor)
        if count == together * N
            multiply_rows!(to + 4 * whole, step, last_rows, taps, panels, depth, Val(L), left, Val(together), Val(N))
        else
            for column in 0:N:count-1
                multiply_rows!(to + 4 * (column * step + whole), step, last_rows, taps, panels + 4 * column * depth, depth, Val(L), left,
                               Val(1), Val(N))
            end
        end
    end
    full < columns && multiply_whole_panels!(y + 4 * full * step, step, a, row_step, taps, b + 4 * full * depth, rows, columns - full,
                                             depth, corner, processor)
    return nothing
end

function multiply_whole_panels!(y, step, a, row_step, taps, b, rows, columns, depth, corner, ::Processor{L,N}) where {L,N}
    column = 0
    while column < columns
        is_wide = columns - column > N - N ÷ 3
        width = is_wide ? N : N ÷ 3
        row = 0
        while row < rows
            is_tall = rows - row > L
            height = is_tall ? 2L : L
            fits = row + height <= rows && column + width <= columns
            to, to_step = fits ? (y + 4 * (column * step + row), step) : (corner, 2L)
            from, panel = a + 4 * row * row_step, b + 4 * column * depth
            if is_wide
                is_tall ? multiply_panel!(to, to_step, from, taps, panel, depth, Val(L), Val(2), Val(N)) :
                    multiply_panel!(to, to_step, from, taps, panel, depth, Val(L), Val(1), Val(N))
            else
                is_tall ? multiply_panel!(to, to_step, from, taps, panel, depth, Val(L), Val(2), Val(N ÷ 3)) :
                    multiply_panel!(to, to_step, from, taps, panel, depth, Val(L), Val(1), Val(N ÷ 3))
            end
            if !fits
                for j in 0:min(width, columns - column)-1
                    unsafe_copyto!(y + 4 * ((column + j) * step + row), corner + 8 * L * j, min(height, rows - row))
                end
            end
            row += height
        end
        column += width
    end
    return nothing
end

"How many numbers the corner of [`multiply_panels!`](@ref) has."
corner_length(::Processor{L,N}) where {L,N} = 2L * N

"The numbers that are readable after panels of columns, at least."
const SLACK = 16

"`columns`, rounded up to whole panels."
panel_columns(columns, ::Processor{L,N}) where {L,N} = cld(columns, N ÷ 3) * (N ÷ 3)

"`rows`, rounded up to whole panels of two vectors."
panel_rows(rows, ::Processor{L}) where {L} = cld(rows, 2L) * 2L

"`rows`, rounded up to whole vectors."
vector_rows(rows, ::Processor{L}) where {L} = cld(rows, L) * L

"At least `n`, an odd number of cache lines: columns that are so far apart do not compete for the same places in the cache."
column_step(n) = (cld(n, 16) | 1) * 16

"`taps` of a matrix in panels of rows ([`pack_rows!`](@ref)), for sums of length `depth`."
panel_taps(depth, ::Processor{L}) where {L} = Int[8 * L * k for k in 0:depth-1]

"""
    pack_columns!(to, offset, x, from, step, depth, columns, first, processor)

Store a matrix of (depth, columns), whose columns are `step` numbers apart in the vector `x` from the offset `from` on, in
panels of columns. Unless `first` is empty, it is the matrix's first row, before those of `x`. The last panel is filled up with
zeros.
"""
function pack_columns!(to, offset, x, from, step, depth, columns, first, ::Processor{L,N}) where {L,N}
    column, extra = 0, isempty(first) ? 0 : 1
    while column < columns
        width = columns - column > N - N ÷ 3 ? N : N ÷ 3
        panel = offset + column * (depth + extra)
        eights = 0
        # Not in the first pass, which arranges weights: they would repay neither this nor its compilation. Julia compiles what is of no
        # known type only if it is called.
        if WARMED_UP[] && width >= 8 && column + width <= columns && depth >= 16
            pack = Base.inferencebarrier(pack_eights!)
            pack(to, panel + extra * width, x, from + column * step, step, depth, width)
            eights = depth - depth % 8
        end
        for j in 0:width-1
            at = panel + j + 1
            if column + j >= columns
                @inbounds for k in 0:depth+extra-1
                    to[at+k*width] = 0.0f0
                end
            else
                extra == 1 && (to[at] = first[column+j+1])
                at += extra * width
                source = from + (column + j) * step + 1
                @inbounds for k in eights:depth-1
                    to[at+k*width] = x[source+k]
                end
            end
        end
        column += width
    end
    return nothing
end

"Store `width` columns, 8 or more, which are `step` numbers apart in `x`, by rows of `width` numbers, so many as are eights of them."
function pack_eights!(to, offset, x, from, step, depth, width)
    GC.@preserve to x for k in 0:8:depth-8
        p, q = pointer(x, from + k + 1), pointer(to, offset + k * width + 1)
        transpose_eight!(q, width, p, step)
        # What is left is less than eight columns: they overlap with those before them.
        width > 8 && transpose_eight!(q + 4 * (width - 8), width, p + 4 * (width - 8) * step, step)
    end
    return nothing
end

"""
    pack_rows!(to, offset, x, from, step, rows, depth, first, processor)

Store a matrix of (rows, depth), whose columns are `step` numbers apart in the vector `x` from the offset `from` on, in panels of
two vectors' rows. Unless `first` is empty, it is the matrix's first column, before those of `x`.
"""
function pack_rows!(to, offset, x, from, step, rows, depth, first, ::Processor{L}) where {L}
    extra = isempty(first) ? 0 : 1
    for row in 0:2L:rows-1
        panel, height = offset + row * (depth + extra), min(2L, rows - row)
        if extra == 1
            for i in 0:2L-1
                to[panel+i+1] = i < height ? first[row+i+1] : 0.0f0
            end
            panel += 2L
        end
        for k in 0:depth-1
            at, source = panel + 2L * k, from + step * k + row
            if height == 2L
                copy_elements!(to, at + 1, x, source + 1, 2L)
            else
                copy_elements!(to, at + 1, x, source + 1, height)
                fill_range!(to, at + height, 2L - height)
            end
        end
    end
    return nothing
end
