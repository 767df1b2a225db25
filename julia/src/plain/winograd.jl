# Convolutions with a 3x3 kernel by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, "Fast Algorithms for
# Convolutional Neural Networks", 2015): a tile of 4x4 output pixels takes 36 multiplications for each pair of channels,
# and not 144.
#
# A tile sees 6x6 input pixels. They are transformed to 36 numbers, the frequencies; each frequency of all tiles is a
# matrix (tiles, in), and its product with a matrix of transformed weights is the same frequency of the output. The points
# of interpolation are 0, ±A, ±B and infinity. Those of Lavin & Gray (0, ±1, ±2) have about five times the error; with
# these it is about that of im2col.

const A, B = 2.0f0 / 3, 3.0f0 / 2  # A * B == 1, which saves multiplications
const FREQUENCIES = 36

"Eight numbers, which become one or two vector registers: those of eight tiles that are side by side."
const Lanes = NTuple{8,VecElement{Float32}}

# LLVM may fuse a product and a sum (contract).
for (name, operation) in ((:add, "fadd"), (:sub, "fsub"), (:mul, "fmul"))
    code = "%3 = $operation contract <8 x float> %0, %1\nret <8 x float> %3"
    @eval @inline $name(a::Lanes, b::Lanes) = Base.llvmcall($code, Lanes, Tuple{Lanes,Lanes}, a, b)
end
@inline mul(a::Float32, b::Lanes) = mul(broadcast_lanes(a), b)
@inline broadcast_lanes(a) = ntuple(_ -> VecElement(a), Val(8))

# evens and odds take every second number of two vectors that follow each other. low and high do the opposite: they
# alternate the numbers of two vectors, and are the first and the second half of the result.
for (name, order) in ((:evens, 0:2:14), (:odds, 1:2:15), (:low, (0, 8, 1, 9, 2, 10, 3, 11)), (:high, (4, 12, 5, 13, 6, 14, 7, 15)))
    mask = join(("i32 $i" for i in order), ", ")
    code = "%3 = shufflevector <8 x float> %0, <8 x float> %1, <8 x i32> <$mask>\nret <8 x float> %3"
    @eval @inline $name(a::Lanes, b::Lanes) = Base.llvmcall($code, Lanes, Tuple{Lanes,Lanes}, a, b)
end

# `offset` counts numbers from 0. The caller keeps the array of `p` alive.
@inline load_lanes(p::Ptr{Float32}, offset) = unsafe_load(Ptr{Lanes}(p + 4 * offset))
@inline store_lanes!(p::Ptr{Float32}, offset, a::Lanes) = unsafe_store!(Ptr{Lanes}(p + 4 * offset), a)

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
    transform_weights!(made, weight)

Store the frequencies of the weights: an (in, out) matrix for each frequency. `made` is resized.
"""
function transform_weights!(made, weight)
    channels = size(weight, 4) * size(weight, 5)
    resize!(made, FREQUENCIES * channels)
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

"Rows of tiles, counted from 0 through all images, and the output channels, from 0, that a task computes at a time."
struct WinogradBand
    rows::UnitRange{Int}
    channels::UnitRange{Int}
end

"How many numbers the frequencies of a band have, roughly: few enough for the cache of a core."
const BAND_ELEMENTS = 3 << 16

"How many tiles a band has at least, if there are as many: what repays that OpenBLAS copies all the weights for each band."
const BAND_TILES = 48

function winograd_bands(y, in_channels, threads)
    columns, out = cld(size(y, 1), 4), size(y, 4)
    rows = cld(size(y, 2), 4) * size(y, 5)
    tiles = max(BAND_TILES, BAND_ELEMENTS ÷ (FREQUENCIES * (in_channels + out)))
    count, shares = clamp(cld(rows * columns, tiles), 1, rows), 1
    if count % threads != 0
        rows * columns < BAND_TILES * threads ? (shares = min(out, threads)) : (count = min(rows, cld(count, threads) * threads))
    end
    bands = WinogradBand[]
    for i in 1:count, j in 1:shares
        push!(bands, WinogradBand(chunk_range(rows, count, i), chunk_range(out, shares, j)))
    end
    return bands
end

"""
    uses_winograd(c, y_size, images) -> Bool

Whether the convolution `c` takes less time by Winograd's method.
"""
function uses_winograd(c, y_size, images)
    w = c.window
    w.kernel == (3, 3, 1) && w.spatial == 2 && c.groups == 1 && all(isone, w.stride) && all(isone, w.dilation) || return false
    return min(size(c.weight, 4), size(c.weight, 5)) >= 32 && cld(y_size[1], 4) * cld(y_size[2], 4) * images >= 16
end

"The convolution `c` of `x`, with bias and activation, to `y`. Arrays have five dimensions."
function winograd!(y, x, c)
    isempty(c.frequencies) && transform_weights!(c.frequencies, c.weight)
    cost = length(y) * (3 * size(x, 4) + ELEMENT_COST)
    bands = winograd_bands(y, size(x, 4), threads_worth(cost))
    parallel_for(length(bands), cost) do task, items
        for i in items
            winograd_band!(y, x, c, bands[i], task)
        end
    end
    return nothing
end

function winograd_band!(y, x, c, band, task)
    columns, rows_per_image, inputs, outputs = cld(size(y, 1), 4), cld(size(y, 2), 4), size(x, 4), length(band.channels)
    tiles = columns * length(band.rows)
    height = tiles + 8  # Eight tiles at a time may be stored where fewer are left in a row.
    width = 32 * cld(columns, 8) + 16  # of a staged row
    made = FREQUENCIES * height * inputs
    lines = made + FREQUENCIES * height * outputs
    staged = lines + 6 * max(width, 32)
    stage_length = width * (4 * length(band.rows) + 2)
    buffer = workspace(task, staged + stage_length)
    GC.@preserve buffer begin
        place = 0
        for image in band.rows[1]÷rows_per_image:band.rows[end]÷rows_per_image
            rows = max(band.rows[1] - image * rows_per_image, 0):min(band.rows[end] - image * rows_per_image, rows_per_image - 1)
            fill_range!(buffer, staged, stage_length)
            for channel in 0:inputs-1
                stage_rows!(buffer, staged, width, x, image * inputs + channel, rows, c.window)
                for row in 0:length(rows)-1
                    input_row_frequencies!(pointer(buffer), height * channel + place + columns * row, height * inputs,
                                           staged + 4 * row * width, width, lines, columns)
                end
            end
            place += columns * length(rows)
        end
        GC.@preserve c for i in 0:FREQUENCIES-1
            BLAS.gemm!('N', 'N', 1.0f0, view(matrix_view(buffer, height * inputs * i, height, inputs), 1:tiles, :),
                       matrix_view(c.frequencies, inputs * (size(y, 4) * i + band.channels[1]), inputs, outputs), 0.0f0,
                       view(matrix_view(buffer, made + height * outputs * i, height, outputs), 1:tiles, :))
        end
        place = 0
        for image in band.rows[1]÷rows_per_image:band.rows[end]÷rows_per_image
            rows = max(band.rows[1] - image * rows_per_image, 0):min(band.rows[end] - image * rows_per_image, rows_per_image - 1)
            for channel in 0:outputs-1
                bias = c.bias === false ? 0.0f0 : c.bias[band.channels[1]+channel+1]
                for row in 0:length(rows)-1
                    output_rows!(pointer(buffer), made + height * channel + place + columns * row, height * outputs,
                                 staged, width, lines, columns, bias)
                    first = 4 * (rows[1] + row)
                    for line in first:min(first + 3, size(y, 2) - 1)
                        to = size(y, 1) * (size(y, 2) * (size(y, 4) * image + band.channels[1] + channel) + line)
                        copy_elements!(y, to + 1, buffer, staged + (line - first) * width + 1, size(y, 1))
                    end
                end
            end
            place += columns * length(rows)
            activate!(y, c.σ, OutputTile(image, 0, 4*rows[1]:min(4 * rows[end] + 3, size(y, 2) - 1), band.channels))
        end
    end
    return nothing
end

"Copy the input rows that the tiles of `rows` see to the stage, of rows of `width` numbers. What padding adds stays as it is."
function stage_rows!(buffer, staged, width, x, plane, rows, w)
    first = 4 * rows[1] - w.pad[3]  # the input row that is the first of the stage
    # Less than the whole row if the padding at the end is cut off.
    n = min(size(x, 1), width - w.pad[1])
    for row in max(first, 0):min(4 * rows[end] + 5 - w.pad[3], size(x, 2) - 1)
        copy_elements!(buffer, staged + (row - first) * width + w.pad[1] + 1, x, size(x, 1) * (size(x, 2) * plane + row) + 1, n)
    end
    return nothing
end

"""
    input_row_frequencies!(p, to, step, from, width, lines, columns)

Store the frequencies of a row of tiles, whose six staged rows begin at `from`; each frequency goes to `step` numbers after
the one before. `lines` is where there is room for six rows.
"""
function input_row_frequencies!(p, to, step, from, width, lines, columns)
    for i in 0:8:width-8
        d = transform_input(load_lanes(p, from + i), load_lanes(p, from + width + i), load_lanes(p, from + 2width + i),
                            load_lanes(p, from + 3width + i), load_lanes(p, from + 4width + i), load_lanes(p, from + 5width + i))
        at = lines + i
        store_lanes!(p, at, d[1]); store_lanes!(p, at + width, d[2]); store_lanes!(p, at + 2width, d[3])
        store_lanes!(p, at + 3width, d[4]); store_lanes!(p, at + 4width, d[5]); store_lanes!(p, at + 5width, d[6])
    end
    for first in 0:8:columns-1, row in 0:5
        at = lines + row * width + 4 * first
        a, b, c, d = load_lanes(p, at), load_lanes(p, at + 8), load_lanes(p, at + 16), load_lanes(p, at + 24)
        e, f, g, h = load_lanes(p, at + 4), load_lanes(p, at + 12), load_lanes(p, at + 20), load_lanes(p, at + 28)
        even, even2, odd, odd2 = evens(a, b), evens(c, d), odds(a, b), odds(c, d)
        m = transform_input(evens(even, even2), evens(odd, odd2), odds(even, even2), odds(odd, odd2),
                            evens(evens(e, f), evens(g, h)), evens(odds(e, f), odds(g, h)))
        at, apart = to + first + row * step, 6 * step
        store_lanes!(p, at, m[1]); store_lanes!(p, at + apart, m[2]); store_lanes!(p, at + 2apart, m[3])
        store_lanes!(p, at + 3apart, m[4]); store_lanes!(p, at + 4apart, m[5]); store_lanes!(p, at + 5apart, m[6])
    end
    return nothing
end

"""
    output_rows!(p, from, step, to, width, lines, columns, bias)

Store the four output rows of a row of tiles, of `width` numbers each, whose frequencies are at `from` and each `step`
numbers later. `lines` is where there is room for 24 vectors.
"""
function output_rows!(p, from, step, to, width, lines, columns, bias)
    added = broadcast_lanes(bias)
    for first in 0:8:columns-1
        for column in 0:5
            at = from + first + 6 * column * step
            d = transform_output(load_lanes(p, at), load_lanes(p, at + step), load_lanes(p, at + 2step),
                                 load_lanes(p, at + 3step), load_lanes(p, at + 4step), load_lanes(p, at + 5step))
            at = lines + 8 * column
            store_lanes!(p, at, d[1]); store_lanes!(p, at + 48, d[2]); store_lanes!(p, at + 96, d[3]); store_lanes!(p, at + 144, d[4])
        end
        for row in 0:3
            at = lines + 48 * row
            d = transform_output(load_lanes(p, at), load_lanes(p, at + 8), load_lanes(p, at + 16),
                                 load_lanes(p, at + 24), load_lanes(p, at + 32), load_lanes(p, at + 40))
            d0, d1, d2, d3 = add(d[1], added), add(d[2], added), add(d[3], added), add(d[4], added)
            a, b, c, d = low(d0, d2), high(d0, d2), low(d1, d3), high(d1, d3)
            at = to + row * width + 4 * first
            store_lanes!(p, at, low(a, c)); store_lanes!(p, at + 8, high(a, c))
            store_lanes!(p, at + 16, low(b, d)); store_lanes!(p, at + 24, high(b, d))
        end
    end
    return nothing
end
