# Products of matrices whose operands are packed once: C = A * B.
#
# OpenBLAS copies both matrices in each call, into the order in which its innermost loop reads them. Here the weights are
# copied when a layer is called first, and the other matrix is written in that order to begin with.
#
# B is in panels of `N` columns, the last one or two of `N ÷ 3` if that suffices: a panel has the numbers of its first row,
# then those of the second, and so on. A is read by vectors of its rows: `taps` has an offset, in bytes, for each of its columns.

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
    zero, read, products, store = Expr(:block), Expr(:block), Expr(:block), Expr(:block)
    for i in 0:M-1
        push!(read.args, :($(Symbol(:row_, i)) = load_lanes(from, $(L * i), Val($L))))
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
            nothing_yet = broadcast_lanes(0.0f0, Val($L))
            $zero
            for k in 1:depth
                from = a + unsafe_load(taps, k)
                $read
                $products
                b += $(4N)
            end
            $store
            return nothing
        end
    end
end

for (L, widths) in ((4, (2, 4, 6, 12)), (8, (2, 6)), (16, (4, 12))), M in 1:2, N in widths
    eval(panel_method(L, M, N))
end

"""
    multiply_panels!(y, step, a, row_step, taps, b, rows, columns, depth, corner, processor)

Store the product of `rows` rows of A, `row_step` numbers apart, and `columns` columns in panels at `b` in `y`. `corner` has
room for a panel's product, where there are fewer rows or columns than it has. A is readable up to a multiple of `L` rows.
"""
function multiply_panels!(y, step, a, row_step, taps, b, rows, columns, depth, corner, ::Processor{L,N}) where {L,N}
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
                @inbounds for k in 0:depth-1
                    to[at+k*width] = x[source+k]
                end
            end
        end
        column += width
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
