"""
    ConvTranspose(weight, bias, σ = identity; stride = 1, pad = 0, outpad = 0, dilation = 1, groups = 1)

Transposed convolution, as Flux's `ConvTranspose` (its src/layers/conv.jl): (W, H, in, N) to (W', H', out, N), for one to
three spatial dimensions, with W' = (W - 1) * stride + dilation * (kw - 1) + 1 - pads + outpad.

It is the gradient of [`Conv`](@ref) with respect to its input. `weight` is (kw, kh, out ÷ groups, in); `bias` is a vector
of length `out`, or `false`. `pad` crops the output, and `outpad` extends it at its end. Throws `DimensionMismatch` if
sizes do not fit.
"""
struct ConvTranspose
    σ::Any
    weight::Array{Float32,5}
    bias::Union{Vector{Float32},Bool}
    window::Window
    outpad::NTuple{3,Int}
    groups::Int
end

function ConvTranspose(weight::Array{Float32,N}, bias, σ=identity;
                       stride=1, pad=0, outpad=0, dilation=1, groups=1) where {N}
    shape = window(size(weight)[1:N-2]; stride=stride, pad=pad, dilation=dilation)
    groups >= 1 && size(weight, N) % groups == 0 ||
        throw(DimensionMismatch("$(size(weight, N)) input channels do not divide into $groups groups"))
    out = size(weight, N - 1) * groups
    bias === false || length(bias) == out ||
        throw(DimensionMismatch("$(length(bias)) biases for $out output channels"))
    return ConvTranspose(σ, reshape(weight, shape.kernel..., size(weight, N - 1), size(weight, N)), bias, shape,
                         expand_option(outpad, N - 2, 0, Val(3)), groups)
end

function (c::ConvTranspose)(input::Array{Float32})
    x = as_volumes(input, c.window)
    size(x, 4) == size(c.weight, 5) || throw(DimensionMismatch(
        "$c expects $(size(c.weight, 5)) channels, but got $(size(x, 4))"))
    y = Array{Float32,5}(undef, transposed_size(c, spatial_size(x))..., size(c.weight, 4) * c.groups, size(x, 5))
    for plane in 0:size(y, 4)*size(y, 5)-1
        fill_range!(y, plane * prod(spatial_size(y)), prod(spatial_size(y)),
                    c.bias === false ? 0.0f0 : c.bias[plane%size(y, 4)+1])
    end
    for n in 1:size(x, 5), g in 0:c.groups-1
        scatter_group!(y, x, c, n, g)
    end
    activate!(y, c.σ, 0, length(y))
    return restore_rank(y, input)
end

"The spatial size of the output for an input of spatial size `volume`."
function transposed_size(c, volume)
    w = c.window
    y_size = ntuple(Val(3)) do i
        (volume[i] - 1) * w.stride[i] + w.dilation[i] * (w.kernel[i] - 1) + 1 - w.pad[2i-1] - w.pad[2i] + c.outpad[i]
    end
    all(>=(1), y_size) || throw(DimensionMismatch("$c makes nothing of an input of $(volume[1:w.spatial])"))
    return y_size
end

"""
    scatter_group!(y, x, c, n, g)

Add group `g`, from 0, of image `n`, from 1, to `y`. The product of the (W * H, in) input and the (in, taps * out) weights
is what each input pixel adds to each tap of its window. Windows overlap, so these are summed into `y`.
"""
function scatter_group!(y, x, c::ConvTranspose, n, g)
    kw, kh, kd = c.window.kernel
    x_size, y_size = spatial_size(x), spatial_size(y)
    pixels, depth, share = prod(x_size), size(x, 4) ÷ c.groups, size(c.weight, 4)
    taps = kw * kh * kd
    contributions = workspace(1, pixels * taps * share)
    GC.@preserve x c BLAS.gemm!('N', 'T', 1.0f0,
        matrix_view(x, pixels * (size(x, 4) * (n - 1) + g * depth), pixels, depth),
        matrix_view(c.weight, taps * share * g * depth, taps * share, depth),
        0.0f0, matrix_view(contributions, 0, pixels, taps * share))
    offset = 0
    for o in 0:share-1
        y_offset = prod(y_size) * (size(y, 4) * (n - 1) + g * share + o)
        for slice in kd-1:-1:0, row in kh-1:-1:0, column in kw-1:-1:0  # downwards, which flips the kernel
            scatter_tap!(y, y_offset, y_size, contributions, offset, x_size, c.window, (column, row, slice))
            offset += pixels
        end
    end
    return nothing
end

function Base.show(io::IO, c::ConvTranspose)
    out, n = size(c.weight, 4) * c.groups, c.window.spatial
    print(io, "ConvTranspose(", c.window.kernel[1:n], ", ", size(c.weight, 5), " => ", out)
    show_options(io, c)
    all(iszero, c.outpad) || print(io, ", outpad=", c.outpad[1:n])
    print(io, ")")
end
