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
    panels::Vector{Float32}  # the weights as convolve! reads them; empty until it is called
    frequencies::Vector{Float32}  # those of winograd!, or those of multiply_weights! for images of one pixel
    Conv(σ, weight, bias, window, groups) = new(σ, weight, bias, window, groups, Float32[], Float32[])
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
    method = choose_method(c, spatial_size(y), size(y, 5))
    method(y, x, c)
    return restore_rank(y, input)
end

allocates_output(::Conv) = true

"""
The function that computes the convolution `c` for an output of spatial size `y_size`. Julia does not know which, and compiles only
what is called.
"""
function choose_method(c, y_size, images)
    if size(c.weight, 4) == 1 && c.groups > 1
        return uses_rows(c, y_size) ? depthwise_rows! : depthwise!
    elseif is_pointwise(c.window) && c.groups == 1 && element_count(y_size) == 1
        return multiply_pixels!
    end
    return uses_winograd(c, y_size, images) ? winograd! : convolve!
end

"The pointwise convolution `c` of images of one pixel, which is a linear layer."
function multiply_pixels!(y, x, c)
    multiply_weights!(vec(y), vec(x), pack_pixel_weights!(c), c.σ, size(c.weight, 5), size(y, 5))
    return nothing
end

"The weights of a pointwise convolution as those of a linear layer ([`pack_weights!`](@ref)), packed in the first call."
function pack_pixel_weights!(c)
    inputs, outputs = size(c.weight, 4), size(c.weight, 5)
    if isempty(c.frequencies)
        weight = Matrix{Float32}(undef, outputs, inputs)
        for o in 1:outputs, i in 1:inputs
            weight[o, i] = c.weight[inputs*(o-1)+i]
        end
        pack_weights!(c.frequencies, weight, outputs, inputs, c.bias)
    end
    return c.frequencies
end

"The length of the sum behind one output number: kernel size times channels of a group."
inner_length(weight) = length(weight) ÷ max(1, size(weight, 5))

"An (m, n) matrix in the memory of `x` from `offset`, from 0, on. The caller keeps `x` alive."
matrix_view(x::Array{Float32}, offset, m, n) = unsafe_wrap(Array, pointer(x, offset + 1), (m, n))

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
        i = first(columns)
        GC.@preserve x y while stride == 2 && i + 7 < last(columns)
            p = pointer(x, from + 2i)
            store_lanes!(pointer(y, to + i), 0, evens(load_lanes(p, 0, Val(8)), load_lanes(p, 8, Val(8))))
            i += 8
        end
        @inbounds @simd ivdep for i in i:last(columns)
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
