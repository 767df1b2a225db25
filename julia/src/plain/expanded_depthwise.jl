# A pointwise convolution and the depthwise convolution of its output, computed together, as in the inverted residuals of MobileNets and
# EfficientNets. The output between them has six times as many channels as what is before and after, so it is larger than
# the caches. Here a few rows of a block of channels are at hand at a time.

"""
    ExpandedDepthwise(expand, depthwise)

`depthwise(expand(x))`, for a pointwise and a depthwise [`Conv`](@ref) of (W, H, C, N) that [`expands`](@ref) accepts.
"""
struct ExpandedDepthwise
    expand::Conv
    depthwise::Conv
    taps::Vector{Float32}  # the weights of `depthwise` as expand_block! reads them; empty until the first call
end

"Whether an [`ExpandedDepthwise`](@ref) can compute two convolutions, `b` of the output of `a`."
expands(a::Conv, b::Conv) = takes_prepared(a) && b.window.spatial == 2 && size(b.weight, 4) == 1 &&
    b.groups == size(b.weight, 5) == size(a.weight, 5)

"Replace a pointwise convolution and a depthwise one after it by one layer. `nodes` has the node of each layer; that of the latter remains."
function join_expansions!(layers, nodes)
    for i in length(layers):-1:2
        a, b = layers[i-1], layers[i]
        if a isa Conv && b isa Conv && expands(a, b)
            layers[i-1] = ExpandedDepthwise(a, b, Float32[])
            deleteat!(layers, i)
            deleteat!(nodes, i - 1)
        end
    end
    return nothing
end

"""
What [`expand_block!`](@ref) knows of sizes. A task's workspace has, from `ring` on, `rows` rows of `width` pixels with padding: row
`i` of the expanded image is in row `i % rows`. They are made in groups of `group` rows, at `sums`, and the output in groups of
`together` rows, at `output`. A pixel has the numbers of a block of channels. `packed` is how many numbers a group of input rows has.
"""
struct RingLayout
    window::Window
    x_size::NTuple{3,Int}
    y_size::NTuple{3,Int}
    depth::Int  # of the products: the input channels, and one for the bias
    group::Int
    packed::Int
    together::Int
    rows::Int
    width::Int
    sums::Int
    ring::Int
    output::Int
    length::Int
end

"The pixels that are computed at a time at least, of the expanded image and of the output."
const EXPANDED_PIXELS, OUTPUT_PIXELS = 96, 56

function RingLayout(x_size, y_size, w, inputs, processor::Processor{L}) where {L}
    group = min(cld(EXPANDED_PIXELS, x_size[1]), x_size[2])
    pixels = panel_columns(group * x_size[1], processor)
    together = min(cld(OUTPUT_PIXELS, y_size[1]), y_size[2])
    rows = (w.kernel[2] - 1) * w.dilation[2] + 1 + group
    width = max(w.pad[1] + x_size[1], (y_size[1] - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1)
    sums = 2L * pixels
    ring = sums + 2L * rows * width
    output = ring + 2L * together * y_size[1]
    return RingLayout(w, x_size, y_size, inputs + 1, group, pixels * (inputs + 1), together, rows, width, 0, sums, ring, output + 2L)
end

"The convolutions of `x`. Throws `DimensionMismatch` if sizes do not fit."
function (e::ExpandedDepthwise)(x::Array{Float32})
    a, b = e.expand, e.depthwise
    isempty(x) && return b(a(x))
    x_size = spatial_size(as_volumes(x, a.window))
    size(x, 3) == size(a.weight, 4) || throw(DimensionMismatch("$a expects $(size(a.weight, 4)) channels, but got $(size(x, 3))"))
    y_size = output_size(b.window, x_size)
    y = acquire((y_size[1], y_size[2], size(b.weight, 5), size(x, 4)))
    isempty(y) && return y
    isempty(e.taps) && pack_taps!(e.taps, b)
    expand_images!(y, x, e, pack_pixel_weights!(a), RingLayout(x_size, y_size, b.window, size(x, 3), PROCESSOR[]), PROCESSOR[])
    return y
end

allocates_output(::ExpandedDepthwise) = true

Base.show(io::IO, e::ExpandedDepthwise) = print(io, "ExpandedDepthwise(", e.expand, ", ", e.depthwise, ")")

"Store the kernels of `c`, and its bias before them, in panels of rows, one row for each channel and one column for each tap."
function pack_taps!(taps, c)
    kernel, channels = inner_length(c.weight), size(c.weight, 5)
    weight = Matrix{Float32}(undef, channels, kernel)
    for o in 1:channels, k in 1:kernel
        weight[o, k] = c.weight[kernel*o-k+1]  # backwards, which flips the kernel
    end
    pack_weights!(taps, weight, channels, kernel, c.bias)
    return nothing
end

function expand_images!(y, x, e, weights, l, processor::Processor{L}) where {L}
    channels, images = size(y, 3), size(y, 4)
    blocks, groups = cld(channels, 2L), cld(l.x_size[2], l.group)
    packed = acquire((l.packed * groups * images,))
    parallel_for(groups * images, ELEMENT_COST * length(x)) do _, items
        pack_groups!(packed, x, l, groups, items, processor)
    end
    cost = channels * images * (element_count(l.x_size) * l.depth + element_count(l.y_size) * (inner_length(e.depthwise.weight) + ELEMENT_COST))
    # An image has few blocks at times, which all threads should share.
    shares = clamp(cld(CHUNKS_PER_THREAD * threads_worth(cost), blocks * images), 1, cld(l.y_size[2], LEAST_ROWS))
    taps = panel_taps(l.depth, processor)
    parallel_for(images * blocks * shares, cost, MOST_CHUNKS) do task, items
        buffer = workspace(task, l.length + 16)
        expand_blocks!(y, packed, weights, taps, e.taps, buffer, l, groups, blocks, shares, items, e.expand.σ, e.depthwise.σ, processor,
                       Val(l.window.stride[1]), Val(cld(l.y_size[1], cld(l.y_size[1], MOST_PIXELS))))
    end
    release!(packed)
    return nothing
end

"The rows of a share of an image at least. Shares compute the rows of the expanded image between them twice."
const LEAST_ROWS = 14

"The output pixels that are summed at a time at most: their sums, of two vectors each, are in registers."
const MOST_PIXELS = 7

"Store groups of input rows in panels of columns, as [`multiply_whole_panels!`](@ref) reads them; each pixel is a column. A panel's first row is ones."
function pack_groups!(to, x, l, groups, items, ::Processor{L,N}) where {L,N}
    plane, (width, height) = l.x_size[1] * l.x_size[2], l.x_size
    for item in items .- 1
        image, group = item ÷ groups, item % groups
        from = plane * (l.depth - 1) * image + width * l.group * group
        pixels = width * min(l.group, height - l.group * group)
        at, pixel = l.packed * item, 0
        while pixel < pixels
            if pixel + N <= pixels
                pack_pixels!(to, at, x, from + pixel, plane, l.depth - 1, Val(N))
                columns = N
            else
                columns = pixels - pixel > N - N ÷ 3 ? N : N ÷ 3
                pack_pixels!(to, at, x, from + pixel, plane, l.depth - 1, columns, min(columns, pixels - pixel))
            end
            pixel += columns
            at += columns * l.depth
        end
    end
    return nothing
end

@inline function pack_pixels!(to, at, x, from, plane, channels, ::Val{N}) where {N}
    fill_range!(to, at, N, 1.0f0)
    for k in 0:channels-1
        at += N
        @inbounds @simd ivdep for i in 1:N
            to[at+i] = x[from+plane*k+i]
        end
    end
    return nothing
end

@inline function pack_pixels!(to, at, x, from, plane, channels, columns, pixels)
    fill_range!(to, at, columns, 1.0f0)
    for k in 0:channels-1
        at += columns
        @inbounds for i in 1:pixels
            to[at+i] = x[from+plane*k+i]
        end
        fill_range!(to, at + pixels, columns - pixels)
    end
    return nothing
end

function expand_blocks!(y, packed, weights, taps, kernels, buffer, l, groups, blocks, shares, items, σ_a::F, σ_b::G,
                        processor::Processor{L}, stride, together) where {F,G,L}
    channels = size(y, 3)
    aligned = Int(-(UInt(pointer(buffer)) >> 2) % UInt(16))
    for item in items .- 1
        image, block, share = item ÷ shares ÷ blocks, item ÷ shares % blocks, item % shares
        first_channel, rows = 2L * block, chunk_range(l.y_size[2], shares, share + 1)
        count = min(2L, channels - first_channel)
        GC.@preserve packed weights taps kernels begin
            from = pointer(packed, l.packed * groups * image + 1)
            panel = pointer(weights, first_channel * l.depth + 1)
            kernel = pointer(kernels, first_channel * (l.window.kernel[1] * l.window.kernel[2] + 1) + 1)
            to = element_count(l.y_size) * (channels * image + first_channel)
            if count > L
                expand_block!(y, to, count, from, panel, pointer(taps), kernel, buffer, aligned, l, rows, σ_a, σ_b, processor, Val(2), stride, together)
            else
                expand_block!(y, to, count, from, panel, pointer(taps), kernel, buffer, aligned, l, rows, σ_a, σ_b, processor, Val(1), stride, together)
            end
        end
    end
    return nothing
end

"""
Compute so many output `rows` of a block of `channels`, `M` vectors, whose planes begin at the offset `to` of `y`: expand what the next
row needs, and then sum it, `P` pixels together.
"""
function expand_block!(y, to, channels, packed, weights, taps, kernel, buffer, aligned, l, rows, σ_a::F, σ_b::G, processor::Processor{L},
                       ::Val{M}, stride::Val{S}, together::Val{P}) where {F,G,L,M,S,P}
    w, lanes, plane, (width, height) = l.window, L * M, l.y_size[1] * l.y_size[2], l.x_size
    zero_padding!(buffer, aligned + l.ring, l, lanes)
    expanded = max(0, first(rows) * w.stride[2] - w.pad[3]) ÷ l.group  # the next group
    waiting, start = 0, first(rows)
    GC.@preserve buffer y for row in rows
        top = row * w.stride[2] - w.pad[3]
        while expanded * l.group < min(height, top + (w.kernel[2] - 1) * w.dilation[2] + 1)
            pixels = width * min(l.group, height - expanded * l.group)
            multiply_whole_panels!(pointer(buffer, aligned + l.sums + 1), lanes, weights, 0, taps, packed + 4 * l.packed * expanded, lanes,
                                   panel_columns(pixels, processor), l.depth, pointer(buffer), processor)
            for i in 0:pixels÷width-1
                at = aligned + l.ring + lanes * (l.width * ((expanded * l.group + i) % l.rows) + w.pad[1])
                activate_into!(buffer, at, aligned + l.sums + lanes * width * i, lanes * width, σ_a)
            end
            expanded += 1
        end
        sum_row!(pointer(buffer, aligned + l.output + lanes * l.y_size[1] * waiting + 1), pointer(buffer, aligned + l.ring + 1), top, kernel,
                 l, Val(L), Val(M), stride, together)
        waiting += 1
        if waiting == l.together || row == last(rows)
            pixels = waiting * l.y_size[1]
            activate!(buffer, σ_b, aligned + l.output, lanes * pixels)
            store_planes!(pointer(y, to + l.y_size[1] * start + 1), plane, pointer(buffer, aligned + l.output + 1), lanes, pixels, channels)
            waiting, start = 0, row + 1
        end
    end
    return nothing
end

"Store zeros in the pixels of the ring that are before and after the rows of the image."
@inline function zero_padding!(buffer, ring, l, lanes)
    before, after = l.window.pad[1], l.width - l.window.pad[1] - l.x_size[1]
    for row in 0:l.rows-1
        fill_range!(buffer, ring + lanes * l.width * row, lanes * before)
        fill_range!(buffer, ring + lanes * (l.width * (row + 1) - after), lanes * after)
    end
    return nothing
end

"Store an output row, whose windows begin in the row `top` of the image, at `y`."
@inline function sum_row!(y, ring, top, kernel, l, ::Val{L}, ::Val{M}, stride::Val{S}, ::Val{P}) where {L,M,S,P}
    w, lanes = l.window, L * M
    # The taps that are in the image, not above or below it.
    above = top < 0 ? cld(-top, w.dilation[2]) : 0
    below = min(w.kernel[2], cld(max(0, l.x_size[2] - top), w.dilation[2]))
    first_row = above < below ? (top + above * w.dilation[2]) % l.rows : 0
    taps = kernel + 4 * 2L * (1 + above * w.kernel[1])
    column = 0
    while column < l.y_size[1]
        at = min(column, l.y_size[1] - P)
        sum_pixels!(y + 4 * lanes * at, ring + 4 * lanes * S * at, first_row, l.rows, lanes * l.width, w.dilation[2], below - above,
                    w.kernel[1], lanes * w.dilation[1], taps, kernel, Val(L), Val(M), stride, Val(P))
        column += P
    end
    return nothing
end

"""
    sum_pixels!(y, ring, row, rows, row_step, row_dilation, tap_rows, tap_columns, column_step, taps, bias, Val(L), Val(M), Val(S), Val(P))

Store `P` output pixels of `M` vectors of `L` numbers at `y`. Their windows begin in the row `row` of the ring, of so many `rows`, and
are `S` pixels apart.
"""
@generated function sum_pixels!(y::Ptr{Float32}, ring::Ptr{Float32}, row, rows, row_step, row_dilation, tap_rows, tap_columns, column_step,
                                taps::Ptr{Float32}, bias::Ptr{Float32}, ::Val{L}, ::Val{M}, ::Val{S}, ::Val{P}) where {L,M,S,P}
    sums, products, store = Expr(:block), Expr(:block), Expr(:block)
    for m in 0:M-1
        push!(products.args, :($(Symbol(:weight_, m)) = load_lanes(taps, $(L * m), Val(L))))
    end
    for p in 0:P-1, m in 0:M-1
        sum, at = Symbol(:sum_, p, :_, m), L * (M * p + m)
        push!(sums.args, :($sum = load_lanes(bias, $(L * m), Val(L))))
        push!(products.args, :($sum = mul_add($(Symbol(:weight_, m)), load_lanes(from, $(L * (M * S * p + m)), Val(L)), $sum)))
        push!(store.args, :(store_lanes!(y, $at, $sum)))
    end
    return quote
        $(Expr(:meta, :inline))
        $sums
        for _ in 1:tap_rows
            from = ring + 4 * row * row_step
            for _ in 1:tap_columns
                $products
                from += 4 * column_step
                taps += $(8L)
            end
            row += row_dilation
            row >= rows && (row -= rows)
        end
        $store
        return nothing
    end
end

"""
    store_planes!(y, plane, x, lanes, pixels, channels)

Store the first `channels` numbers of each of the `pixels` at `x`, `lanes` numbers apart, in planes at `y`, `plane` numbers apart.
"""
@inline function store_planes!(y, plane, x, lanes, pixels, channels)
    eights = pixels < 8 ? 0 : channels ÷ 8 * 8
    for channel in 0:8:eights-1, pixel in 0:8:pixels-1
        at = min(pixel, pixels - 8)
        transpose_eight!(y + 4 * (plane * channel + at), plane, x + 4 * (lanes * at + channel), lanes)
    end
    for channel in eights:channels-1, pixel in 0:pixels-1
        unsafe_store!(y, unsafe_load(x, lanes * pixel + channel + 1), plane * channel + pixel + 1)
    end
    return nothing
end
