# Convolutions with a 3x3 kernel by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, "Fast Algorithms for
# Convolutional Neural Networks", 2015): a tile of 4x4 output pixels takes 36 multiplications for each pair of channels,
# and not 144.
#
# A tile sees 6x6 input pixels. They are transformed to 36 numbers, the frequencies; each frequency of all tiles is a
# matrix (tiles, in), and its product with a matrix of transformed weights is the same frequency of the output. The points
# of interpolation are 0, ±A, ±B and infinity. Those of Lavin & Gray (0, ±1, ±2) have about five times the error; with
# these it is about that of the sums as they are defined.

const A, B = 2.0f0 / 3, 3.0f0 / 2  # A * B == 1, which saves multiplications
const FREQUENCIES = 36

# Eight tiles that are side by side are transformed together.

@inline load_eight(p, offset) = load_lanes(p, offset, Val(8))
@inline load_six(p, offset, step) =
    (load_eight(p, offset), load_eight(p, offset + step), load_eight(p, offset + 2step), load_eight(p, offset + 3step),
     load_eight(p, offset + 4step), load_eight(p, offset + 5step))
@inline function store_four!(p, offset, step, a)
    store_lanes!(p, offset, a[1])
    store_lanes!(p, offset + step, a[2])
    store_lanes!(p, offset + 2step, a[3])
    store_lanes!(p, offset + 3step, a[4])
end
@inline function store_six!(p, offset, step, a)
    store_four!(p, offset, step, a)
    store_lanes!(p, offset + 4step, a[5])
    store_lanes!(p, offset + 5step, a[6])
end

"Transform six input numbers of a row or a column to six frequencies."
@inline function transform_input(d0, d1, d2, d3, d4, d5)
    even, odd = sub(d4, mul(B * B, d2)), sub(mul(A, d3), mul(B, d1))
    even2, odd2 = sub(d4, mul(A * A, d2)), sub(mul(B, d3), mul(A, d1))
    s = A * A + B * B
    return sub(add(d0, d4), mul(s, d2)), add(even, odd), sub(even, odd), add(even2, odd2), sub(even2, odd2),
           sub(add(d1, d5), mul(s, d3))
end

"Transform six frequencies to the four output numbers of a row or a column."
@inline function transform_output(m0, m1, m2, m3, m4, m5)
    sum, difference, sum2, difference2 = add(m1, m2), sub(m1, m2), add(m3, m4), sub(m3, m4)
    return add(m0, add(sum, sum2)), add(mul(A, difference), mul(B, difference2)),
           add(mul(A * A, sum), mul(B * B, sum2)), add(add(mul(A^3, difference), mul(B^3, difference2)), m5)
end

"Transform the three weights of a row or a column of the kernel to six frequencies."
@inline function transform_weights(g0, g1, g2)
    a, b = 1 / (2 * A * A * (A * A - B * B)), 1 / (2 * B * B * (B * B - A * A))
    even, odd, even2, odd2 = a * (g0 + A * A * g2), a * A * g1, b * (g0 + B * B * g2), b * B * g1
    return g0, even + odd, even - odd, even2 + odd2, even2 - odd2, g2
end

"""
    transform_weights(weight)

The frequencies of the weights: an (in, out) matrix for each frequency.
"""
function transform_weights(weight)
    channels = size(weight, 4) * size(weight, 5)
    made = Vector{Float32}(undef, FREQUENCIES * channels)
    columns = Vector{Float32}(undef, 18)
    @inbounds for pair in 0:channels-1
        for column in 0:2
            w = 9 * pair + 3 - column  # backwards, which flips the kernel
            columns[6column+1], columns[6column+2], columns[6column+3], columns[6column+4], columns[6column+5],
            columns[6column+6] = transform_weights(weight[w+6], weight[w+3], weight[w])
        end
        for row in 0:5
            to, step = pair + 1 + row * channels, 6 * channels
            made[to], made[to+step], made[to+2step], made[to+3step], made[to+4step], made[to+5step] =
                transform_weights(columns[row+1], columns[row+7], columns[row+13])
        end
    end
    return made
end

"Store the frequencies of the weights of `c` in panels."
function pack_frequencies!(c, processor)
    inputs, outputs = size(c.weight, 4), size(c.weight, 5)
    made, panels = transform_weights(c.weight), inputs * panel_columns(outputs, processor)
    resize!(c.frequencies, FREQUENCIES * panels)
    for i in 0:FREQUENCIES-1
        pack_columns!(c.frequencies, panels * i, made, inputs * outputs * i, inputs, inputs, outputs, Float32[], processor)
    end
    return nothing
end

"Rows of tiles, counted from 0 through all images, and the output channels, from 0, that a task computes at a time."
struct WinogradBand
    rows::UnitRange{Int}
    channels::UnitRange{Int}
end

"""
How many tiles a band has, if there are as many: enough to repay reading all the weights for each band, and few enough for the
cache.
"""
const BAND_TILES = 64

"Divide the output `y` into bands: of few rows of tiles, or, if an image has few tiles, of a part of the channels."
function winograd_bands(y, threads, ::Processor{L,N}) where {L,N}
    columns, out = cld(size(y, 1), 4), size(y, 4)
    rows = cld(size(y, 2), 4) * size(y, 5)
    count, shares = clamp(cld(rows * columns, BAND_TILES), 1, rows), 1
    if count % threads != 0
        if count == 1
            shares = min(cld(out, N), threads)
        else
            count = min(rows, cld(count, threads) * threads)
        end
    end
    bands = WinogradBand[]
    for i in 1:count, j in 1:shares
        channels = multiple_range(out, shares, j, N)
        isempty(channels) || push!(bands, WinogradBand(chunk_range(rows, count, i), channels))
    end
    return bands
end

"""
    uses_winograd(c, y_size, images) -> Bool

Whether the convolution `c` takes less time by Winograd's method, for an output of spatial size `y_size`.

Measured in turns with [`convolve!`](@ref), on one core, with Julia 1.10: 1.4 to 2.9 times as fast for 32 to 512 channels and at
least 16 tiles. With fewer tiles it is not faster, as the transformed weights are four times as many as the weights and have to
be read, nor where much of the tiles is beyond the edge (5x5 and 9x9 pixels), nor with 16 input channels or fewer.
"""
function uses_winograd(c, y_size, images)
    w = c.window
    w.spatial == 2 && w.kernel == (3, 3, 1) && c.groups == 1 && all(isone, w.stride) && all(isone, w.dilation) || return false
    tiles = cld(y_size[1], 4) * cld(y_size[2], 4)
    return size(c.weight, 4) >= 24 && tiles * images >= 16 && y_size[1] * y_size[2] >= 10 * tiles &&
        (!isempty(c.frequencies) || 4 * sizeof(c.weight) <= FREQUENCY_BUDGET[])
end

"""
How many bytes the transformed weights of further layers may have. The first layers of a network gain most and have the
fewest weights, so they get it.
"""
const FREQUENCY_BUDGET = Ref(typemax(Int))

"Allow the transformed weights of the next model, whose weights have so many `bytes`, as much memory again, or 256 MiB."
limit_frequencies!(bytes) = FREQUENCY_BUDGET[] = max(bytes, 1 << 28)

"""
    winograd!(y, x, c)

The convolution `c` of `x`, with bias and activation, to `y`. Arrays have five dimensions. An `Inf` in `x` becomes `NaN` in
`y`, and a `NaN` spreads to the whole of a tile.
"""
function winograd!(y, x, c)
    processor = PROCESSOR[]
    if isempty(c.frequencies)
        pack_frequencies!(c, processor)
        FREQUENCY_BUDGET[] -= sizeof(c.frequencies)
    end
    cost = length(y) * (3 * size(x, 4) + ELEMENT_COST)
    bands = winograd_bands(y, threads_worth(cost), processor)
    parallel_for(length(bands), cost, MOST_CHUNKS) do task, items
        for i in items
            layout = BandLayout(y, bands[i], size(x, 4), processor)
            buffer = workspace(task, layout.length + corner_length(processor))
            input_frequencies!(buffer, x, c, bands[i], layout)
            multiply_frequencies!(buffer, c, bands[i], layout, processor)
            output_frequencies!(y, buffer, c, bands[i], layout)
        end
    end
    return nothing
end

"""
Where the numbers of a band are in a workspace.

- `columns`: the tiles in a row of tiles. `rows`: the rows of tiles in an image.
- `height`: the rows of the matrices of frequencies. There is a matrix of (height, in) for each frequency from the offset 0
  on, and one of (height, out) for each from `products` on. They have more rows than tiles, as eight tiles at a time are
  stored where fewer are left, and vectors of them read; `outputs` are the columns of the latter, in whole panels.
- `lines`: the offset of intermediate results of one row of tiles.
- `stage`: the offset of the stage, a copy of all input rows that the band sees of one channel, with padding. `width` is
  the length of a row of it. Afterwards it takes the output of one row of tiles.
"""
struct BandLayout
    columns::Int
    rows::Int
    height::Int
    outputs::Int
    input_step::Int
    output_step::Int
    products::Int
    lines::Int
    stage::Int
    width::Int
    length::Int
end

function BandLayout(y, band, inputs, processor)
    columns = cld(size(y, 1), 4)
    height = column_step(max(panel_rows(columns * length(band.rows), processor), columns * length(band.rows) + 8))
    input_step, outputs = column_step(height * inputs), panel_columns(length(band.channels), processor)
    output_step = column_step(height * outputs)
    products = FREQUENCIES * input_step
    lines = products + FREQUENCIES * output_step
    width = 32 * cld(columns, 8) + 16
    stage = lines + 6 * width
    return BandLayout(columns, cld(size(y, 2), 4), height, outputs, input_step, output_step, products, lines, stage, width,
                      stage + width * (4 * length(band.rows) + 2))
end

"The images, from 0, that a band has rows of tiles of."
images(band, layout) = band.rows[1]÷layout.rows:band.rows[end]÷layout.rows

"The rows of tiles, from 0, that a band has of an image."
image_rows(band, layout, image) =
    max(band.rows[1] - image * layout.rows, 0):min(band.rows[end] - image * layout.rows, layout.rows - 1)

"Store the frequencies of all tiles of the band."
function input_frequencies!(buffer, x, c, band, layout)
    tile = 0
    for image in images(band, layout)
        rows = image_rows(band, layout, image)
        fill_range!(buffer, layout.stage, layout.length - layout.stage)
        for channel in 0:size(x, 4)-1
            stage_rows!(buffer, x, size(x, 4) * image + channel, rows, c.window, layout)
            for row in 0:length(rows)-1
                input_row_frequencies!(buffer, layout.height * channel + tile + layout.columns * row,
                                       layout.input_step, layout.stage + 4 * row * layout.width, layout)
            end
        end
        tile += layout.columns * length(rows)
    end
    return nothing
end

"Store the products of the frequencies and those of the weights."
function multiply_frequencies!(buffer, c, band, l, processor)
    inputs = size(c.weight, 4)
    tiles, panels = vector_rows(l.columns * length(band.rows), processor), inputs * panel_columns(size(c.weight, 5), processor)
    taps = Int[4 * l.height * k for k in 0:inputs-1]
    GC.@preserve buffer c taps for i in 0:FREQUENCIES-1
        multiply_panels!(pointer(buffer, l.products + l.output_step * i + 1), l.height,
                         pointer(buffer, l.input_step * i + 1), 1, pointer(taps),
                         pointer(c.frequencies, panels * i + inputs * band.channels[1] + 1), tiles, l.outputs, inputs,
                         pointer(buffer, l.length + 1), processor)
    end
    return nothing
end

"Transform the products to the band's output."
function output_frequencies!(y, buffer, c, band, layout)
    tile, width, height = 0, size(y, 1), size(y, 2)
    for image in images(band, layout)
        rows = image_rows(band, layout, image)
        for (i, channel) in enumerate(band.channels)
            bias = c.bias === false ? 0.0f0 : c.bias[channel+1]
            plane = height * (size(y, 4) * image + channel)
            for row in rows
                from = layout.products + layout.height * (i - 1) + tile + layout.columns * (row - rows[1])
                output_row!(buffer, from, layout.output_step, bias, layout)
                for line in 0:min(3, height - 1 - 4row)
                    copy_elements!(y, width * (plane + 4row + line) + 1, buffer, layout.stage + line * layout.width + 1, width)
                end
            end
        end
        tile += layout.columns * length(rows)
        c.σ === identity || activate!(y, c.σ, OutputTile(image, 0, 0, 4*rows[1]:min(4 * rows[end] + 4, height)-1, band.channels), spatial_size(y))
    end
    return nothing
end

"""
Copy the input rows that the tiles of `rows` see to the stage. What is around them is left as it is, which is the padding:
zeros.
"""
@inline function stage_rows!(buffer, x, plane, rows, w, layout)
    first = 4 * rows[1] - w.pad[3]  # the input row that is the first of the stage
    for row in max(first, 0):min(4 * rows[end] + 5 - w.pad[3], size(x, 2) - 1)
        copy_elements!(buffer, layout.stage + (row - first) * layout.width + w.pad[1] + 1,
                       x, size(x, 1) * (size(x, 2) * plane + row) + 1, size(x, 1))
    end
    return nothing
end

"""
    input_row_frequencies!(buffer, to, step, from, layout)

Store the frequencies of a row of tiles, whose six staged rows begin at `from`. Each frequency goes to `step` numbers after
the one before. First the columns are transformed, then the rows.
"""
@inline function input_row_frequencies!(buffer, to, step, from, layout)
    width, lines = layout.width, layout.lines
    GC.@preserve buffer begin
        p = pointer(buffer)
        for i in 0:8:width-8
            store_six!(p, lines + i, width, transform_input(load_six(p, from + i, width)...))
        end
        for first in 0:8:layout.columns-1, row in 0:5
            at = lines + row * width + 4 * first
            a, b, c, d = load_eight(p, at), load_eight(p, at + 8), load_eight(p, at + 16), load_eight(p, at + 24)
            e, f, g, h = load_eight(p, at + 4), load_eight(p, at + 12), load_eight(p, at + 20), load_eight(p, at + 28)
            # The columns 0, 2, 1 and 3 of eight tiles, and the columns 4 and 5, which are 0 and 1 of the tiles after them.
            even, even2, odd, odd2 = evens(a, b), evens(c, d), odds(a, b), odds(c, d)
            m = transform_input(evens(even, even2), evens(odd, odd2), odds(even, even2), odds(odd, odd2),
                                evens(evens(e, f), evens(g, h)), evens(odds(e, f), odds(g, h)))
            store_six!(p, to + first + row * step, 6 * step, m)
        end
    end
    return nothing
end

"""
    output_row!(buffer, from, step, bias, layout)

Store the four output rows of a row of tiles, whose frequencies are at `from` and each `step` numbers later, on the stage.
"""
@inline function output_row!(buffer, from, step, bias, layout)
    width, lines, added = layout.width, layout.lines, broadcast_lanes(bias, Val(8))
    GC.@preserve buffer begin
        p = pointer(buffer)
        for first in 0:8:layout.columns-1
            for column in 0:5
                d = transform_output(load_six(p, from + first + 6 * column * step, step)...)
                store_four!(p, lines + 8 * column, 48, d)
            end
            for row in 0:3
                d = transform_output(load_six(p, lines + 48 * row, 8)...)
                d0, d1, d2, d3 = add(d[1], added), add(d[2], added), add(d[3], added), add(d[4], added)
                a, b, c, d = low(d0, d2), high(d0, d2), low(d1, d3), high(d1, d3)
                store_four!(p, layout.stage + row * width + 4 * first, 8, (low(a, c), high(a, c), low(b, d), high(b, d)))
            end
        end
    end
    return nothing
end
