# Depthwise convolution with the kernels that networks have: 3x3, 5x5 and 7x7 pixels, with strides of 1 or 2. Several output rows
# are summed at a time, so that what is read of an input row serves all of them.

"How many output rows are summed at a time."
const ROWS_TOGETHER = 4

"""
Whether [`depthwise_rows!`](@ref) computes the convolution `c` with an output of spatial size `y_size`. Of small planes and
kernels, [`depthwise!`](@ref) is faster.
"""
function uses_rows(c, y_size)
    w = c.window
    return w.spatial == 2 && w.kernel[1] == w.kernel[2] && w.kernel[1] in (3, 5, 7) && w.stride[1] == w.stride[2] <= 2 &&
        all(isone, w.dilation) && all(<(w.kernel[1]), w.pad) && y_size[2] >= ROWS_TOGETHER && (w.kernel[1] > 3 || y_size[1] > 8)
end

"The numbers of the planes that are copied before the first of them is read, which would wait for what was just stored."
const PLANES_NUMBERS = 1 << 13

"""
How a task's workspace holds padded input planes, of which so many `together` are computed, each `step` numbers after the other. With a stride of 2 it has the even columns and, `phase` numbers later, the odd
ones. Rows are `width` numbers apart. The input's first column begins at `starts[1]`, the second, with a stride of 2, at
`starts[2]`. From `spare` on there is room for what cannot be read or stored in its place.
"""
struct RowLayout
    x_size::NTuple{3,Int}
    y_size::NTuple{3,Int}
    width::Int
    phase::Int
    starts::NTuple{2,Int}
    step::Int
    together::Int
    spare::Int
    length::Int
end

function RowLayout(x_size, y_size, w, ::Val{L}) where {L}
    stride = w.stride[1]
    width = cld(cld(x_size[1] + w.pad[1] + w.pad[2], stride), L) * L
    phase = width * (x_size[2] + w.pad[3] + w.pad[4]) + 2L
    start(column) = column % stride * phase + width * w.pad[3] + column ÷ stride
    step = stride * phase
    together = max(1, PLANES_NUMBERS ÷ step)
    spare = step * together + L
    return RowLayout(x_size, y_size, width, phase, (start(w.pad[1]), start(w.pad[1] + 1)), step, together, spare,
                     spare + max(x_size[1] + 2L, ROWS_TOGETHER * cld(y_size[1], L) * L) + L)
end

"The length of the vectors for rows of so many numbers: short ones where a row fills no more than one."
row_vector(::Processor{L}, width) where {L} = L == 16 && width <= 8 ? Val(8) : Val(L)

"The convolution `c` of `x`, with bias and activation, to `y`. Arrays have five dimensions."
function depthwise_rows!(y, x, c)
    w, length = c.window, row_vector(PROCESSOR[], size(y, 1))
    layout = RowLayout(spatial_size(x), spatial_size(y), w, length)
    planes, pixels = size(y, 4) * size(y, 5), element_count(spatial_size(y))
    parallel_for(planes, planes * pixels * (inner_length(c.weight) + ELEMENT_COST)) do task, items
        buffer = workspace(task, layout.length)
        fill_range!(buffer, 0, layout.length)
        aligned = Int(-(UInt(pointer(buffer)) >> 2) % UInt(16))
        together = max(1, ACTIVATION_BLOCK ÷ pixels)
        for first in items[1]-1:together:items[end]-1
            last = min(first + together, items[end]) - 1
            convolve_planes!(y, x, c, first:last, buffer, aligned, layout, length, Val(w.kernel[1]), Val(w.stride[1]))
            activate!(y, c.σ, first * pixels, (last - first + 1) * pixels)
        end
    end
    return nothing
end

"The convolution of the output `planes`, counted from 0, with bias but without activation."
function convolve_planes!(y, x, c, planes, buffer, aligned, l, ::Val{L}, ::Val{K}, ::Val{S}) where {L,K,S}
    share, (width, height) = size(y, 4) ÷ c.groups, l.y_size
    limit = width * height * (last(planes) + 1)
    for first in first(planes):l.together:last(planes)
        some = first:min(first + l.together - 1, last(planes))
        for plane in some
            from = size(x, 4) * (plane ÷ size(y, 4)) + plane % size(y, 4) ÷ share
            stage_plane_rows!(buffer, aligned + l.step * (plane - first), x, from, l, Val(L), Val(S))
        end
        for plane in some
            sum_plane!(y, plane, limit, buffer, aligned + l.step * (plane - first), c, l, Val(L), Val(K), Val(S))
        end
    end
    return nothing
end

"The convolution of output plane `plane`, whose input begins at `from`. `limit` is where the output ends that this task may store."
@inline function sum_plane!(y, plane, limit, buffer, from, c, l, ::Val{L}, ::Val{K}, ::Val{S}) where {L,K,S}
    (width, height), o = l.y_size, plane % size(y, 4)
    weight, bias = c.weight, c.bias === false ? 0.0f0 : c.bias[o+1]
    to, whole = width * height * plane, cld(width, L) * L
    GC.@preserve y buffer weight begin
        taps = pointer(weight, K * K * o + 1)
        # What the last row's vectors have beyond it may be another task's.
        rows = to + width * (height - 1) + whole <= limit ? height : height - ROWS_TOGETHER
        sum_rows!(pointer(y, to + 1), width, pointer(buffer, from + 1), l.width, l.phase, taps, bias, width, rows, Val(L), Val(K), Val(S),
                  Val(ROWS_TOGETHER))
        rows == height && return nothing
        sum_rows!(pointer(buffer, l.spare + 1), whole, pointer(buffer, from + S * rows * l.width + 1), l.width, l.phase, taps, bias, width,
                  ROWS_TOGETHER, Val(L), Val(K), Val(S), Val(ROWS_TOGETHER))
        for i in 0:ROWS_TOGETHER-1
            copy_elements!(y, to + width * (rows + i) + 1, buffer, l.spare + whole * i + 1, width)
        end
    end
    return nothing
end

"""
    stage_plane_rows!(buffer, to, x, plane, l, Val(L), Val(S))

Copy input plane `plane`, from 0, to the workspace from the offset `to` on. A vector that is stored there may reach beyond its row. What it
has beyond it is replaced by zeros, the padding, and then by the next row.
"""
@inline function stage_plane_rows!(buffer, to, x, plane, l, ::Val{L}, ::Val{S}) where {L,S}
    width, height = l.x_size
    zeros, to = broadcast_lanes(0.0f0, Val(L)), pointer(buffer, to + 1)
    GC.@preserve buffer x for row in 0:height-1
        offset = width * (height * plane + row)
        from = pointer(x, offset + 1)
        if offset + cld(width, S * L) * S * L > length(x)
            unsafe_copyto!(pointer(buffer, l.spare + 1), from, width)
            from = pointer(buffer, l.spare + 1)
        end
        at = l.starts[1] + row * l.width
        if S == 1
            for column in 0:L:width-1
                store_lanes!(to, at + column, load_lanes(from, column, Val(L)))
            end
            store_lanes!(to, at + width, zeros)
        else
            at_odd = l.starts[2] + row * l.width
            for column in 0:2L:width-1
                a, b = load_lanes(from, column, Val(L)), load_lanes(from, column + L, Val(L))
                store_lanes!(to, at + column ÷ 2, evens(a, b))
                store_lanes!(to, at_odd + column ÷ 2, odds(a, b))
            end
            store_lanes!(to, at + cld(width, 2), zeros)
            store_lanes!(to, at_odd + width ÷ 2, zeros)
        end
    end
    return nothing
end

"""
    sum_rows!(y, y_step, x, x_step, phase, taps, bias, columns, rows, Val(L), Val(K), Val(S), Val(R))

Store so many output `rows`, `y_step` numbers apart, of so many `columns`, `R` rows together and by vectors of `L` numbers. Their windows
of KxK begin at `x`, where vectors are aligned. `taps` are the kernel backwards. A row's last vector may reach beyond it, to where
the next row begins: it is stored first, and the next row after it. What is stored beyond the last row is undefined.
"""
@generated function sum_rows!(y::Ptr{Float32}, y_step, x::Ptr{Float32}, x_step, phase, taps::Ptr{Float32}, bias, columns, rows,
                              ::Val{L}, ::Val{K}, ::Val{S}, ::Val{R}) where {L,K,S,R}
    weights, sums, products, store = Expr(:block), Expr(:block), Expr(:block), Expr(:block)
    for k in 0:K*K-1
        push!(weights.args, :($(Symbol(:weight_, k)) = broadcast_lanes(unsafe_load(taps, $(K * K - k)), Val(L))))
    end
    for i in 0:R-1
        push!(sums.args, :($(Symbol(:sum_, i)) = added))
        push!(store.args, :(store_lanes!(to, at + $i * y_step, $(Symbol(:sum_, i)))))
    end
    for line in 0:S*(R-1)+K-1, parity in 0:S-1
        # A load that is not aligned takes two, so the numbers are taken of two that are.
        push!(products.args, :(place = at + $line * x_step + $parity * phase))
        push!(products.args, :(aligned = load_lanes(from, place, Val(L))))
        push!(products.args, :(second = load_lanes(from, place + L, Val(L))))
        for column in parity:S:K-1
            push!(products.args, :(numbers = numbers_from(aligned, second, Val($(column ÷ S)))))
            for i in 0:R-1
                0 <= line - S * i < K || continue
                sum = Symbol(:sum_, i)
                push!(products.args, :($sum = mul_add($(Symbol(:weight_, K * (line - S * i) + column)), numbers, $sum)))
            end
        end
    end
    return quote
        $(Expr(:meta, :inline))
        added = broadcast_lanes(bias, Val(L))
        $weights
        for first in 0:$R:rows-1
            row = max(0, min(first, rows - $R))
            from, to = x + 4 * $S * row * x_step, y + 4 * row * y_step
            at = (columns - 1) ÷ L * L
            while at >= 0
                $sums
                $products
                $store
                at -= L
            end
        end
        return nothing
    end
end
