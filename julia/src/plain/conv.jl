"""
    Conv(weight, bias, σ = identity; stride = 1, pad = 0, dilation = 1, groups = 1)

Convolution, as Flux's `Conv` (its src/layers/conv.jl): (W, H, in, N) to (W', H', out, N), for one to three spatial
dimensions.

`weight` is (kw, kh, in ÷ groups, out), and does not change once the layer has been called; `bias` is a vector of length
`out`, or `false`. Throws `DimensionMismatch` if sizes do not fit. The kernel is flipped, as in NNlib's `conv`; in ONNX and
PyTorch it is not.
"""
struct Conv
    σ::Any  # not a type parameter, so that Julia compiles the layer once for all activations
    weight::Array{Float32,5}
    bias::Union{Vector{Float32},Bool}
    window::Window
    groups::Int
    frequencies::Vector{Float32}  # empty until winograd! is called
    Conv(σ, weight, bias, window, groups) = new(σ, weight, bias, window, groups, Float32[])
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
    elseif uses_winograd(c, spatial_size(y), size(y, 5))
        winograd!(y, x, c)
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
A tile: the part of a convolution's output that one task computes at a time. It covers the `channels` of one `group` in
the `rows` of one `image`, all counted from 0. Rows are counted through all slices of a volume.
"""
struct OutputTile
    image::Int
    group::Int
    rows::UnitRange{Int}
    channels::UnitRange{Int}
end

"""
How many elements a tile reads and writes: few enough for the cache, and enough to repay what OpenBLAS copies for each
product.
"""
const TILE_ELEMENTS = 1 << 20

"""
    tile_output(y, weight, groups, threads) -> Vector{OutputTile}

Divide the output `y` into tiles: bands of rows that fit into the cache between im2col and the product, and enough of them
to give all threads equal work.

OpenBLAS copies all the weights for each band of rows, and all the columns for each share of the channels. So if an image
has fewer pixels than channels, its channels are divided and not its rows.
"""
function tile_output(y, weight, groups, threads)
    width, rows, share = size(y, 1), size(y, 2) * size(y, 3), size(weight, 5) ÷ groups
    products = size(y, 5) * groups
    bands = clamp(cld(rows * width * (inner_length(weight) + share), TILE_ELEMENTS), 1, rows)
    shares = 1
    if products % threads != 0
        rows * width < share ? (shares = min(share, threads)) : (bands = min(rows, cld(bands, threads) * threads))
    end
    tiles = OutputTile[]  # by a loop, which takes Julia a third of a comprehension's time to compile
    for n in 0:size(y, 5)-1, g in 0:groups-1, i in 1:bands, j in 1:shares
        push!(tiles, OutputTile(n, g, chunk_range(rows, bands, i), chunk_range(share, shares, j) .+ g * share))
    end
    return tiles
end

"The length of the sum behind one output number: kernel size times channels of a group."
inner_length(weight) = length(weight) ÷ max(1, size(weight, 5))

"Fill the tile with the bias, or with zeros. The product is added to it."
function fill_bias!(y, bias, tile)
    pixels = prod(spatial_size(y))
    for channel in tile.channels
        fill_range!(y, pixels * (size(y, 4) * tile.image + channel) + size(y, 1) * tile.rows[1],
                    size(y, 1) * length(tile.rows), bias === false ? 0.0f0 : bias[channel+1])
    end
    return nothing
end

"Apply `σ` to the tile in place. A tile of whole planes is contiguous."
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
    tile_product!(y, x, weight, w, tile, task)

Add the tile's convolution to `y`: a product of the (pixels, taps * in) matrix of im2col and the (taps * in, out) weights.
A kernel of size 1 without stride and padding needs no im2col, as the matrix is `x` itself. `task` selects the workspace.
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

"""
The elements of a matrix with one row or column, as a vector in the same memory.

Needed for gemv. OpenBLAS has no special case for a gemm with a vector (OpenMathLib/OpenBLAS#4580), except on some processors
since 0.3.28 (#4951).
"""
vector_view(x) = unsafe_wrap(Array, pointer(x), length(x))

"An (m, n) matrix in the memory of `x` from `offset`, from 0, on. The caller keeps `x` alive."
matrix_view(x::Array{Float32}, offset, m, n) = unsafe_wrap(Array, pointer(x, offset + 1), (m, n))

"""
    im2col!(buffer, x, x_offset, x_size, y_size, channels, rows, w)

Store the (W' * rows, kw * kh * kd * in) matrix of the input numbers that each tap of the kernel sees at each pixel of the
output `rows`. It has the `channels` input channels that begin at `x_offset`. Padding is stored as zeros.
"""
function im2col!(buffer, x, x_offset, x_size, y_size, channels, rows, w::Window)
    kw, kh, kd = w.kernel
    stride, width, to = w.stride[1], y_size[1], 0
    for channel in 0:channels-1
        plane = x_offset + prod(x_size) * channel
        for slice in kd-1:-1:0, row in kh-1:-1:0, column in kw-1:-1:0  # downwards, which flips the kernel
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

"""
The input row, counted from 0 through all slices, under the kernel's `row` and `slice` at output row `r`; -1 on the
padding.
"""
@inline function input_row(r, (row, slice), x_size, y_size, w)
    z, y = y_size[3] == 1 ? (0, r) : divrem(r, y_size[2])
    i = y * w.stride[2] + row * w.dilation[2] - w.pad[3]
    k = z * w.stride[3] + slice * w.dilation[3] - w.pad[5]
    return 0 <= i < x_size[2] && 0 <= k < x_size[3] ? k * x_size[2] + i : -1
end

"""
`copyto!` for arrays. Called from a precompiled package, `copyto!` boxes its numbers on Julia 1.5
(JuliaLang/julia#35972).
"""
@inline copy_elements!(y, to, x, from, n) = GC.@preserve y x unsafe_copyto!(pointer(y, to), pointer(x, from), n)

"`y[to+i] = x[from+i*stride]` for `i` in `columns`."
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

"Store `value` in the `n` elements of `y` after `offset`."
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

"Print the options of a convolution that differ from the defaults."
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
