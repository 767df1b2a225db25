# Convolutions as products of matrices, without a matrix of im2col: a tile's part of the input is copied with padding, so
# that what a tap sees of a run of output pixels is a run of numbers, at the same distance from what another tap sees.

"""
A tile: the part of a convolution's output that one task computes at a time. It covers the `channels` of one `group` in
the `rows` of one `slice` of an `image`, all counted from 0.
"""
struct OutputTile
    image::Int
    slice::Int
    group::Int
    rows::UnitRange{Int}
    channels::UnitRange{Int}
end

"""
How tiles of at most `rows` rows are computed. `y_size` and `x_size` are the spatial sizes.

A task's workspace holds `planes` planes of `plane` numbers: one of ones, whose weight is the bias, and one for each channel and
each slice of the kernel. They are split by the stride into phases (a polyphase decomposition) of `phase` numbers, with rows of
`width` numbers: a row of the output, and numbers beyond it that are not used. `taps` are the offsets, in bytes, of what a tap
sees. After the planes are the sums, if rows are wider than the output's, and the corner of [`multiply_panels!`](@ref).
"""
struct TileLayout
    y_size::NTuple{3,Int}
    x_size::NTuple{3,Int}
    window::Window
    rows::Int
    width::Int
    phase::Int
    plane::Int
    planes::Int
    taps::Vector{Int}
end

"The numbers of a tile that are in the cache at a time, at most if a row is not larger."
const TILE_NUMBERS = 1 << 16

"The convolution `c` of `x`, with bias and activation, to `y`. Arrays have five dimensions."
function convolve!(y, x, c)
    processor = PROCESSOR[]
    w, x_size, y_size = c.window, spatial_size(x), spatial_size(y)
    inputs, share = size(c.weight, 4), size(c.weight, 5) ÷ c.groups
    # Pixels of which a tile can have any part.
    is_pointwise(w) && (x_size = y_size = (1, element_count(y_size), 1))
    isempty(c.panels) && pack_convolution!(c, processor)
    cost = length(y) * (inner_length(c.weight) + ELEMENT_COST)
    tiles = tile_output(y, y_size, w, inputs, share, c.groups, threads_worth(cost), processor)
    rows = 0
    for tile in tiles
        rows = max(rows, length(tile.rows))
    end
    layout = TileLayout(x_size, y_size, w, inputs, rows, processor)
    parallel_for(length(tiles), cost, MOST_CHUNKS) do task, items
        for i in items
            compute_tile!(y, x, c, tiles[i], layout, task, processor)
            c.σ === identity || activate!(y, c.σ, tiles[i], y_size)
        end
    end
    return nothing
end

"Whether each output pixel is computed from the input pixel at the same place."
is_pointwise(w) = element_count(w.kernel) == 1 && element_count(w.stride) == 1 && all(iszero, w.pad)

"Store the weights, and the bias before them, as [`convolve!`](@ref) reads them."
function pack_convolution!(c, processor)
    depth, share = inner_length(c.weight), size(c.weight, 5) ÷ c.groups
    group = panel_columns(share, processor) * (depth + 1)
    resize!(c.panels, group * c.groups + SLACK)
    for g in 0:c.groups-1
        first = c.bias === false ? zeros(Float32, share) : c.bias[g*share+1:(g+1)*share]
        pack_columns!(c.panels, group * g, vec(c.weight), depth * share * g, depth, depth, share, first, processor)
    end
    return nothing
end

"""
Divide the output `y` into tiles: bands of rows that fit into the cache, and enough of them to give all threads equal work. If an
image has few pixels, its channels are divided as well.
"""
function tile_output(y, y_size, w, inputs, share, groups, threads, ::Processor{L,N}) where {L,N}
    width, rows, products = y_size[1], y_size[2], size(y, 5) * groups * y_size[3]
    unit = width == 1 ? 2L : 1  # rows of one pixel are divided at whole vectors
    bands = clamp(cld(rows * width * (inputs * w.stride[1] * w.stride[2] + share), TILE_NUMBERS), 1, cld(rows, unit))
    shares = 1
    if products * bands % threads != 0
        if rows * width < share
            shares = min(cld(share, N), threads)
        else
            bands = min(cld(rows, unit), cld(bands, threads) * threads)
        end
    end
    tiles = OutputTile[]  # by a loop, which takes Julia a third of a comprehension's time to compile
    for n in 0:size(y, 5)-1, slice in 0:y_size[3]-1, g in 0:groups-1, i in 1:bands, j in 1:shares
        band, channels = multiple_range(rows, bands, i, unit), multiple_range(share, shares, j, N)
        isempty(band) || isempty(channels) || push!(tiles, OutputTile(n, slice, g, band, channels .+ g * share))
    end
    return tiles
end

"Share number `i`, from 1, of `0:n-1` divided into `shares` that begin at multiples of `step`."
function multiple_range(n, shares, i, step)
    units = chunk_range(cld(n, step), shares, i)
    return step*first(units):min(n, step * (last(units) + 1))-1
end

function TileLayout(x_size, y_size, w, inputs, rows, ::Processor{L}) where {L}
    kernel, stride, dilation = w.kernel, w.stride, w.dilation
    width = is_pointwise(w) ? 1 : cld(x_size[1] + w.pad[1] + w.pad[2], stride[1])
    lines = rows + (kernel[2] - 1) * dilation[2] ÷ stride[2]
    phase = width * lines
    plane = column_step(phase * stride[1] * stride[2] + 2L + width)  # vectors may reach beyond the last row
    taps = Int[0]
    for channel in 0:inputs-1, slice in kernel[3]-1:-1:0, row in kernel[2]-1:-1:0, column in kernel[1]-1:-1:0  # downwards, which flips the kernel
        i, j = row * dilation[2], column * dilation[1]
        at = plane * (1 + channel * kernel[3] + slice) + phase * (i % stride[2] * stride[1] + j % stride[1]) +
            i ÷ stride[2] * width + j ÷ stride[1]
        push!(taps, 4 * at)
    end
    return TileLayout(y_size, x_size, w, rows, width, phase, plane, inputs * kernel[3] + 1, taps)
end

"Compute a tile without its activation."
function compute_tile!(y, x, c, tile, l, task, processor)
    pixels, height = length(tile.rows) * l.width, panel_rows(l.rows * l.width, processor)
    is_direct = l.width == l.y_size[1]
    channels, depth = length(tile.channels), length(l.taps)
    sums = l.planes * l.plane
    corner = sums + (is_direct ? 0 : height * panel_columns(channels, processor))
    buffer = workspace(task, corner + corner_length(processor))
    stage_tile!(buffer, x, size(c.weight, 4), tile, l)
    share = size(c.weight, 5) ÷ c.groups
    panel = (panel_columns(share, processor) * tile.group + tile.channels[1] - share * tile.group) * depth
    plane = element_count(l.y_size)
    GC.@preserve y buffer c begin
        weights, planes = pointer(c.panels, panel + 1), pointer(buffer)
        taps = pointer(l.taps)
        if is_direct
            first = plane * (size(y, 4) * tile.image + tile.channels[1]) +
                l.y_size[1] * (l.y_size[2] * tile.slice + tile.rows[1])
            multiply_panels!(pointer(y, first + 1), plane, planes, 1, taps, weights, pixels, channels, depth,
                             pointer(buffer, corner + 1), processor)
        else
            multiply_panels!(pointer(buffer, sums + 1), height, planes, 1, taps, weights, vector_rows(pixels, processor),
                             panel_columns(channels, processor), depth, pointer(buffer, corner + 1), processor)
            for i in 0:channels-1, row in tile.rows
                to = plane * (size(y, 4) * tile.image + tile.channels[1] + i) +
                    l.y_size[1] * (l.y_size[2] * tile.slice + row)
                copy_elements!(y, to + 1, buffer, sums + height * i + l.width * (row - tile.rows[1]) + 1, l.y_size[1])
            end
        end
    end
    return nothing
end

"Copy what a tile sees of the input to the workspace, with zeros for the padding."
function stage_tile!(buffer, x, inputs, tile, l)
    w, x_size = l.window, l.x_size
    fill_range!(buffer, 0, l.plane, 1.0f0)
    first_channel = size(x, 4) * tile.image + inputs * tile.group
    for channel in 0:inputs-1, slice in 0:w.kernel[3]-1
        to = l.plane * (1 + channel * w.kernel[3] + slice)
        z = tile.slice * w.stride[3] + slice * w.dilation[3] - w.pad[5]
        if !(0 <= z < x_size[3])
            fill_range!(buffer, to, l.plane)
            continue
        end
        from = element_count(x_size) * (first_channel + channel) + x_size[1] * x_size[2] * z
        if l.width == x_size[1] == l.y_size[1] && element_count(w.kernel) == 1 && w.stride[1] == w.stride[2] == 1
            copy_elements!(buffer, to + 1, x, from + tile.rows[1] * l.width + 1, length(tile.rows) * l.width)
        else
            stage_plane!(buffer, to, x, from, tile, l)
        end
    end
    return nothing
end

@inline function stage_plane!(buffer, to, x, from, tile, l)
    w, x_size, width = l.window, l.x_size, l.width
    for row in 0:(length(tile.rows)-1)*w.stride[2]+(w.kernel[2]-1)*w.dilation[2]
        below = tile.rows[1] * w.stride[2] + row - w.pad[3]
        for column in 0:min(w.stride[1], (w.kernel[1] - 1) * w.dilation[1] + 1)-1
            at = to + l.phase * (row % w.stride[2] * w.stride[1] + column) + width * (row ÷ w.stride[2])
            if 0 <= below < x_size[2]
                shift = column - w.pad[1]
                seen = valid_outputs(shift, w.stride[1], x_size[1], width)
                isempty(seen) && (seen = width:width-1)
                fill_range!(buffer, at, first(seen))
                copy_row_strided!(buffer, at + 1, x, from + below * x_size[1] + shift + 1, w.stride[1], seen)
                fill_range!(buffer, at + last(seen) + 1, width - last(seen) - 1)
            else
                fill_range!(buffer, at, width)
            end
        end
    end
    return nothing
end

"Apply `σ` to the tile in place. A tile of whole planes is contiguous."
function activate!(y, σ::F, tile::OutputTile, y_size) where {F}
    pixels, width = element_count(y_size), y_size[1]
    first = pixels * (size(y, 4) * tile.image + tile.channels[1]) + width * y_size[2] * tile.slice
    channels = length(tile.channels)
    if width * length(tile.rows) == pixels
        activate!(y, σ, first, pixels * channels)
    else
        for i in 0:channels-1
            activate!(y, σ, first + pixels * i + width * tile.rows[1], width * length(tile.rows))
        end
    end
    return nothing
end
