# The sliding window of convolution and pooling. As in NNlib (its src/conv.jl), all computation has three spatial
# dimensions; missing ones have size 1.

"""
A window. `kernel`, `stride` and `dilation` are (w, h, d); `pad` is (w before, w after, h before, ...). `spatial` is the
number of spatial dimensions that the layer has. Throws `ArgumentError` for impossible values.
"""
struct Window
    spatial::Int
    kernel::NTuple{3,Int}
    stride::NTuple{3,Int}
    pad::NTuple{6,Int}
    dilation::NTuple{3,Int}
    function Window(spatial, kernel, stride, pad, dilation)
        all(>=(1), kernel) && all(>=(1), stride) && all(>=(1), dilation) && all(>=(0), pad) ||
            throw(ArgumentError("a window of kernel $kernel, stride $stride, pad $pad, dilation $dilation is impossible"))
        new(spatial, kernel, stride, pad, dilation)
    end
end

"""
    window(kernel; stride, pad, dilation) -> Window

The window for a kernel of one to three spatial dimensions. Each option is one integer or one for each dimension, as in
Flux's `Conv`; `pad` may also have two for each. Throws `ArgumentError` for another number of dimensions.
"""
function window(kernel; stride, pad, dilation)
    n = length(kernel)
    1 <= n <= 3 || throw(ArgumentError("the plain layers have no windows of $n spatial dimensions"))
    sides = pad isa Integer || length(pad) == 2n ? pad : [pad[cld(i, 2)] for i in 1:2n]
    return Window(n, expand_option(kernel, n, 1, Val(3)), expand_option(stride, n, 1, Val(3)),
                  expand_option(sides, 2n, 0, Val(6)), expand_option(dilation, n, 1, Val(3)))
end

"""
An option of `n` values, or one integer for all of them, as a tuple of length `places` that is filled up with
`default`.
"""
expand_option(option, n, default, places) =
    ntuple(i -> i > n ? default : option isa Integer ? Int(option) : Int(option[i]), places)

"""
The spatial size of the output for an input of spatial size `volume`. Throws `DimensionMismatch` if the kernel does
not fit.
"""
output_size(w::Window, volume) = ntuple(i -> output_length(w, volume, i), Val(3))

"The length of the output in dimension `i`."
function output_length(w, volume, i)
    room = volume[i] + w.pad[2i-1] + w.pad[2i] - w.dilation[i] * (w.kernel[i] - 1) - 1
    room >= 0 || throw(DimensionMismatch(
        "a kernel of $(w.kernel[1:w.spatial]) is larger than its padded input of $(volume[1:w.spatial])"))
    return room ÷ w.stride[i] + 1
end

"Reshape (W, C, N), (W, H, C, N) or (W, H, D, C, N) to the last of these. Throws `DimensionMismatch` for another rank."
function as_volumes(x::Array{Float32}, w::Window)
    ndims(x) == w.spatial + 2 ||
        throw(DimensionMismatch("$(w.spatial + 2) dimensions are expected, not $(ndims(x))"))
    return reshape(x, spatial_size(x)..., size(x, ndims(x) - 1), size(x, ndims(x)))
end

"The size of `x` in three spatial dimensions; its last two dimensions are channels and batch."
spatial_size(x::Array{Float32,N}) where {N} = (N > 2 ? size(x, 1) : 1, N > 3 ? size(x, 2) : 1, N > 4 ? size(x, 3) : 1)

"Reshape `y`, of five dimensions, to as many dimensions as `x` has."
restore_rank(y, x::Array{Float32,N}) where {N} = reshape(y, ntuple(i -> size(y, i <= N - 2 ? i : i + 5 - N), Val(N)))

"""
    accumulate_tap!(f, y, y_offset, y_size, x, x_offset, x_size, w, tap)

`y = f(y, x)` at each output position of one volume, where `x` is the input number under one `tap` of the kernel: (column,
row, slice), from 0. Positions whose tap is on the padding are left unchanged. A volume is given by its offset in the
array and its size. The loop runs along rows, which are contiguous, so that it is vectorised.
"""
@inline function accumulate_tap!(f::F, y, y_offset, y_size, x, x_offset, x_size, w::Window, tap) where {F}
    stride = w.stride[1]
    columns, rows, slices, shift = tap_range(y_size, x_size, w, tap)
    for slice in slices, row in rows
        to, from = row_offsets(y_offset, y_size, x_offset, x_size, w, shift, row, slice)
        if stride == 1
            @inbounds @simd ivdep for i in columns
                y[to+i] = f(y[to+i], x[from+i])
            end
        else
            @inbounds @simd ivdep for i in columns
                y[to+i] = f(y[to+i], x[from+i*stride])
            end
        end
    end
    return nothing
end

"""
    scatter_tap!(x, x_offset, x_size, y, y_offset, y_size, w, tap)

The adjoint of [`accumulate_tap!`](@ref): `x += y` at the input position under the tap of each output position.
"""
@inline function scatter_tap!(x, x_offset, x_size, y, y_offset, y_size, w::Window, tap)
    stride = w.stride[1]
    columns, rows, slices, shift = tap_range(y_size, x_size, w, tap)
    for slice in slices, row in rows
        from, to = row_offsets(y_offset, y_size, x_offset, x_size, w, shift, row, slice)
        @inbounds @simd ivdep for i in columns
            x[to+i*stride] += y[from+i]
        end
    end
    return nothing
end

"""
The ranges of output positions, from 0, whose `tap` is within the input. Also returns the tap's position in the input at
output position 0.
"""
@inline function tap_range(y_size, x_size, w, tap)
    shift = (tap[1] * w.dilation[1] - w.pad[1], tap[2] * w.dilation[2] - w.pad[3], tap[3] * w.dilation[3] - w.pad[5])
    columns = valid_outputs(shift[1], w.stride[1], x_size[1], y_size[1])
    rows = valid_outputs(shift[2], w.stride[2], x_size[2], y_size[2])
    slices = valid_outputs(shift[3], w.stride[3], x_size[3], y_size[3])
    return columns, rows, slices, shift
end

"The output positions, from 0, for which the input position `i * stride + shift` is within `0:n-1`."
@inline function valid_outputs(shift, stride, n, outputs)
    # Avoid divisions: they take most of the time of a tap in a small volume.
    first, last = stride == 1 ? (-shift, n - 1 - shift) : (-floor_div(shift, stride), floor_div(n - 1 - shift, stride))
    return max(0, first):min(outputs - 1, last)
end

"""
`fld(a, b)` for a positive `b`. Called from a precompiled package, Base's boxes its numbers on Julia 1.5
(JuliaLang/julia#35972).
"""
@inline floor_div(a, b) = a ÷ b - (a % b < 0)

"The number of elements in a volume. Not `prod`, for the same reason as [`floor_div`](@ref)."
@inline element_count((width, height, depth)) = width * height * depth

"The index of a row's first element in the output, and that of the input number under the tap there."
@inline function row_offsets(y_offset, y_size, x_offset, x_size, w, shift, row, slice)
    to = y_offset + (slice * y_size[2] + row) * y_size[1] + 1
    below = (slice * w.stride[3] + shift[3]) * x_size[2] + row * w.stride[2] + shift[2]
    return to, x_offset + below * x_size[1] + shift[1] + 1
end
