"""
    Conv(weight, bias, σ = identity; stride = 1, pad = 0, dilation = 1, groups = 1)

Convolution as Flux's `Conv` (Flux's src/layers/conv.jl): `weight` is (kw, kh, in ÷ groups, out), with
one to three spatial dimensions; `bias` is a vector of length `out`, or `false`. The kernel is flipped, as
NNlib's `conv` does and a cross-correlation (ONNX, PyTorch) does not.

(W, H, in, N) becomes (W', H', out, N).
"""
struct Conv{F}
    σ::F
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
    x = volumes(input, c.window)
    size(x, 4) == size(c.weight, 4) * c.groups || throw(DimensionMismatch(
        "$c expects $(size(c.weight, 4) * c.groups) channels, but got $(size(x, 4))"))
    y = Array{Float32,5}(undef, output_size(c.window, extent(x))..., size(c.weight, 5), size(x, 5))
    if size(c.weight, 4) == 1 && c.groups > 1
        depthwise!(y, x, c)
    else
        for n in 1:size(x, 5)
            matrix_product!(y, x, c, n)
        end
    end
    add_bias!(y, c.σ, c.bias)
    return like(y, input)
end

"""
Image `n` of `y` as a product of matrices: (W' * H', taps * in) times (taps * in, out), for each group.
A kernel of 1 without stride or padding needs no copy of the image.
"""
function matrix_product!(y, x, c::Conv, n)
    out = size(c.weight, 5)
    pixels = prod(extent(y))
    depth = prod(c.window.kernel) * size(c.weight, 4)
    share = out ÷ c.groups
    pointwise = all(isone, c.window.kernel) && all(isone, c.window.stride) && all(iszero, c.window.pad)
    source = pointwise ? x : columns!(x, c.window, extent(y), n)
    base = pointwise ? pixels * size(x, 4) * (n - 1) : 0
    for g in 0:c.groups-1
        GC.@preserve y source c BLAS.gemm!('N', 'N', 1.0f0,
            matrix(source, base + g * pixels * depth, pixels, depth),
            matrix(c.weight, g * share * depth, depth, share),
            0.0f0, matrix(y, pixels * (out * (n - 1) + g * share), pixels, share))
    end
    return nothing
end

"An m by n matrix in the memory of `x`, from `offset` (from 0) on; the caller preserves `x`."
matrix(x::Array{Float32}, offset, m, n) = unsafe_wrap(Array, pointer(x, offset + 1), (m, n))

const SCRATCH = Float32[]

"""
The columns of image `n` that each tap of each channel sees, in `SCRATCH`: W' * H' by (kw, kh, in).
"""
function columns!(x, w::Window, y_size, n)
    kw, kh, kd = w.kernel
    pixels = prod(y_size)
    scratch!(pixels * kw * kh * kd * size(x, 4))
    x_size = extent(x)
    padded = any(!iszero, w.pad)
    offset = 0
    for channel in 1:size(x, 4)
        x_offset = prod(x_size) * (size(x, 4) * (n - 1) + channel - 1)
        for slice in kd-1:-1:0, row in kh-1:-1:0, column in kw-1:-1:0  # downwards: this is the flip of the kernel
            padded && fill_range!(SCRATCH, offset, pixels)
            sweep!(second, SCRATCH, offset, y_size, x, x_offset, x_size, w, (column, row, slice))
            offset += pixels
        end
    end
    return SCRATCH
end

"`SCRATCH` with room for `n` numbers."
scratch!(n) = length(SCRATCH) < n ? resize!(SCRATCH, n) : SCRATCH

second(a, b) = b

function fill_range!(y, offset, n, value=0.0f0)
    @inbounds @simd for i in offset+1:offset+n
        y[i] = value
    end
end

"One kernel a channel: too little work for a product of matrices, so each tap is swept over the volume."
function depthwise!(y, x, c::Conv)
    kw, kh, kd, _, out = size(c.weight)
    y_size, x_size = extent(y), extent(x)
    share = out ÷ c.groups
    fill!(y, 0)
    for n in 1:size(x, 5), o in 1:out
        y_offset = prod(y_size) * (out * (n - 1) + o - 1)
        x_offset = prod(x_size) * (size(x, 4) * (n - 1) + (o - 1) ÷ share)
        for slice in 0:kd-1, row in 0:kh-1, column in 0:kw-1
            weight = c.weight[kw-column, kh-row, kd-slice, 1, o]
            sweep!((a, b) -> muladd(weight, b, a), y, y_offset, y_size, x, x_offset, x_size, c.window, (column, row, slice))
        end
    end
    return nothing
end

"`y = σ(y + bias)` in one pass; channels are the last but one of (pixels..., channels, batch)."
function add_bias!(y::Array{Float32}, σ::F, bias) where {F}
    bias === false && σ === identity && return y
    channels = size(y, ndims(y) - 1)
    pixels = length(y) ÷ max(1, channels * size(y, ndims(y)))
    for plane in 0:length(y)÷max(1, pixels)-1
        b = bias isa Vector{Float32} ? bias[plane%channels+1] : 0.0f0
        @inbounds @simd for i in plane*pixels+1:plane*pixels+pixels
            y[i] = σ(y[i] + b)
        end
    end
    return y
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
