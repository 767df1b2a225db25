"""
    Conv(weight, bias, σ = identity; stride = 1, pad = 0, dilation = 1, groups = 1)

Convolution as Flux's `Conv` (Flux's src/layers/conv.jl): `weight` is (kw, kh, in ÷ groups, out), with
one to three spatial dimensions; `bias` is a vector of length `out`, or `false`. The kernel is flipped, as
NNlib's `conv` does and a cross-correlation (ONNX, PyTorch) does not.

(W, H, in, N) becomes (W', H', out, N).
"""
struct Conv
    σ::Any  # untyped, so that Julia compiles the layer once for all activations
    weight::Array{Float32,5}
    bias::Union{Vector{Float32},Bool}
    window::Window
    groups::Int
end

function Conv(weight::Array{Float32,N}, bias, σ=identity; stride=1, pad=0, dilation=1, groups=1) where {N}
    shape = window(size(weight)[1:N-2]; stride=stride, pad=pad, dilation=dilation)
    groups >= 1 && size(weight, N) % groups == 0 ||
        throw(DimensionMismatch("$(size(weight, N)) output channels do not divide into $groups groups"))
    bias === false || length(bias) == size(weight, N) ||
        throw(DimensionMismatch("$(length(bias)) biases for $(size(weight, N)) output channels"))
    return Conv(σ, reshape(weight, shape.kernel..., size(weight, N - 1), size(weight, N)), bias, shape, groups)
end

function (c::Conv)(input::Array{Float32})
    x = as_volumes(input, c.window)
    size(x, 4) == size(c.weight, 4) * c.groups || throw(DimensionMismatch(
        "$c expects $(size(c.weight, 4) * c.groups) channels, but got $(size(x, 4))"))
    y = acquire((output_size(c.window, spatial_size(x))..., size(c.weight, 5), size(x, 5)))
    isempty(y) && return restore_rank(y, input)
    if size(c.weight, 4) == 1 && c.groups > 1
        depthwise!(y, x, c)
    else
        cost = length(y) * (inner_length(c.weight) + ELEMENT_COST)
        tiles = tile_output(y, c.weight, c.groups, threads_worth(cost))
        parallel_for(length(tiles), cost) do task, items
            for i in items
                tile = tiles[i]
                fill_bias!(y, c.bias, tile)
                tile_product!(y, x, c.weight, c.window, tile, task)
                activate!(y, c.σ, tile)
            end
        end
    end
    return restore_rank(y, input)
end

allocates_output(::Conv) = true

"""
A part of a convolution's output that one task computes: of `image` the `rows` (through all slices) of the
`channels`, which are of one `group`; all count from 0.
"""
struct OutputTile
    image::Int
    group::Int
    rows::UnitRange{Int}
    channels::UnitRange{Int}
end

"How many numbers a piece reads and makes: few enough for a cache, and many enough for what OpenBLAS prepares a product with."
const TILE_ELEMENTS = 1 << 20

"""
The output in pieces: rows of pixels whose columns stay in the cache between their making and their use, and enough
of them for all `parts` to have the same. OpenBLAS copies all the weights for each band of rows, and all the columns for
each share of the channels: where there are fewer pixels than channels, the channels are divided.
"""
function tile_output(y, weight, groups, threads)
    width, rows, share = size(y, 1), size(y, 2) * size(y, 3), size(weight, 5) ÷ groups
    products = size(y, 5) * groups
    bands = clamp(cld(rows * width * (inner_length(weight) + share), TILE_ELEMENTS), 1, rows)
    shares = 1
    if products % threads != 0
        rows * width < share ? (shares = min(share, threads)) : (bands = min(rows, cld(bands, threads) * threads))
    end
    tiles = OutputTile[]  # by a loop, which Julia compiles in a third of the time that a comprehension takes
    for n in 0:size(y, 5)-1, g in 0:groups-1, i in 1:bands, j in 1:shares
        push!(tiles, OutputTile(n, g, chunk_range(rows, bands, i), chunk_range(share, shares, j) .+ g * share))
    end
    return tiles
end

"How many numbers of the input an output number is made of."
inner_length(weight) = length(weight) ÷ max(1, size(weight, 5))

"The piece's pixels of `y` become the bias, or zeros: what its product is added to."
function fill_bias!(y, bias, tile)
    pixels = prod(spatial_size(y))
    for channel in tile.channels
        fill_range!(y, pixels * (size(y, 4) * tile.image + channel) + size(y, 1) * tile.rows[1],
                    size(y, 1) * length(tile.rows), bias === false ? 0.0f0 : bias[channel+1])
    end
    return nothing
end

"`y = σ(y)` where the piece lies: in one run, if it has whole planes."
function activate!(y, σ, tile::OutputTile)
    pixels, width = prod(spatial_size(y)), size(y, 1)
    first, channels = pixels * (size(y, 4) * tile.image + tile.channels[1]), length(tile.channels)
    if width * length(tile.rows) == pixels
        activate!(y, σ, first, pixels * channels)
    else
        for i in 0:channels-1
            activate!(y, σ, first + pixels * i + width * tile.rows[1], width * length(tile.rows))
        end
    end
    return nothing
end

"""
A piece as a product of matrices, (pixels, taps * in) times (taps * in, out), added to `y`. A kernel of 1 without stride
or padding needs no copy of the pixels.
"""
function tile_product!(y, x, weight, w::Window, tile, task)
    y_size, x_size = spatial_size(y), spatial_size(x)
    depth = inner_length(weight)
    pixels, channels = prod(y_size), length(tile.channels)
    pixel_range = y_size[1]*tile.rows[1]+1:y_size[1]*(tile.rows[end]+1)
    x_offset = prod(x_size) * (size(x, 4) * tile.image + size(weight, 4) * tile.group)
    GC.@preserve y x weight begin
        if all(isone, w.kernel) && all(isone, w.stride) && all(iszero, w.pad)
            columns = view(matrix_view(x, x_offset, pixels, depth), pixel_range, :)
        else
            buffer = workspace(task, length(pixel_range) * depth)
            im2col!(buffer, x, x_offset, x_size, y_size, size(weight, 4), tile.rows, w)
            columns = view(matrix_view(buffer, 0, length(pixel_range), depth), 1:length(pixel_range), :)
        end
        weights = matrix_view(weight, depth * tile.channels[1], depth, channels)
        made = matrix_view(y, pixels * (size(y, 4) * tile.image + tile.channels[1]), pixels, channels)
        if pixels == 1
            BLAS.gemv!('T', 1.0f0, weights, vector_view(columns), 1.0f0, vector_view(made))
        else
            BLAS.gemm!('N', 'N', 1.0f0, columns, weights, 1.0f0, view(made, pixel_range, :))
        end
    end
    return nothing
end

"The numbers of a matrix of one row or column. OpenBLAS multiplies a vector as it does a matrix, unless it is told."
vector_view(x) = unsafe_wrap(Array, pointer(x), length(x))

"An m by n matrix in the memory of `x`, from `offset` (from 0) on; the caller preserves `x`."
matrix_view(x::Array{Float32}, offset, m, n) = unsafe_wrap(Array, pointer(x, offset + 1), (m, n))

"""
The columns that each tap of each of `channels` channels from `x_offset` on sees at the output `rows`, in `buffer`:
(W' * rows) by (kw, kh, kd, in).
"""
function im2col!(buffer, x, x_offset, x_size, y_size, channels, rows, w::Window)
    kw, kh, kd = w.kernel
    stride, width, to = w.stride[1], y_size[1], 0
    for channel in 0:channels-1
        plane = x_offset + prod(x_size) * channel
        for slice in kd-1:-1:0, row in kh-1:-1:0, column in kw-1:-1:0  # downwards: this is the flip of the kernel
            shift = column * w.dilation[1] - w.pad[1]
            seen = valid_outputs(shift, stride, x_size[1], width)
            for r in rows
                below = input_row(r, (row, slice), x_size, y_size, w)
                if below < 0 || isempty(seen)
                    fill_range!(buffer, to, width)
                else
                    from = plane + below * x_size[1] + shift + 1
                    fill_range!(buffer, to, seen[1])
                    copy_row_strided!(buffer, to + 1, x, from, stride, seen)
                    fill_range!(buffer, to + seen[end] + 1, width - seen[end] - 1)
                end
                to += width
            end
        end
    end
    return nothing
end

"Which row of the input (from 0, through all slices) a tap in `row` and `slice` of the kernel sees at output row `r`; -1 on the padding."
@inline function input_row(r, (row, slice), x_size, y_size, w)
    z, y = y_size[3] == 1 ? (0, r) : divrem(r, y_size[2])
    i = y * w.stride[2] + row * w.dilation[2] - w.pad[3]
    k = z * w.stride[3] + slice * w.dilation[3] - w.pad[5]
    return 0 <= i < x_size[2] && 0 <= k < x_size[3] ? k * x_size[2] + i : -1
end

"`copyto!` of arrays, which a package compiled ahead calls with every number in a box (Julia 1.5)."
@inline copy_elements!(y, to, x, from, n) = GC.@preserve y x unsafe_copyto!(pointer(y, to), pointer(x, from), n)

@inline function copy_row_strided!(y, to, x, from, stride, columns)
    if stride == 1
        copy_elements!(y, to + columns[1], x, from + columns[1], length(columns))
    else
        @inbounds @simd ivdep for i in columns
            y[to+i] = x[from+i*stride]
        end
    end
    return nothing
end

@inline function fill_range!(y, offset, n, value=0.0f0)
    @inbounds @simd for i in offset+1:offset+n
        y[i] = value
    end
end

function Base.show(io::IO, c::Conv)
    print(io, "Conv(", c.window.kernel[1:c.window.spatial], ", ", size(c.weight, 4) * c.groups, " => ", size(c.weight, 5))
    show_options(io, c)
    print(io, ")")
end

function show_options(io, c)
    w = c.window
    pad, stride, dilation = w.pad[1:2w.spatial], w.stride[1:w.spatial], w.dilation[1:w.spatial]
    c.σ === identity || print(io, ", ", c.σ)
    all(iszero, pad) || print(io, ", pad=", all(==(pad[1]), pad) ? pad[1] : pad)
    all(isone, stride) || print(io, ", stride=", stride)
    all(isone, dilation) || print(io, ", dilation=", dilation)
    c.groups == 1 || print(io, ", groups=", c.groups)
    c.bias === false && print(io, ", bias=false")
end
