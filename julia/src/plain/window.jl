# The window that convolution and pooling slide over a volume. Like NNlib (its src/conv.jl), everything is
# computed in three spatial dimensions, of which the last ones have size 1 where there are fewer.

"""
A window's `kernel`, `stride` and `dilation` as (w, h, d), its `pad` as (w before, w after, h before, ...);
`spatial` tells how many of the three dimensions are real.
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

For one to three spatial dimensions; the options take what those of Flux's `Conv` take: one integer, one
for each dimension or, for `pad`, two for each.
"""
function window(kernel; stride, pad, dilation)
    n = length(kernel)
    1 <= n <= 3 || throw(ArgumentError("the plain layers have no windows of $n spatial dimensions"))
    sides = pad isa Integer || length(pad) == 2n ? pad : [pad[cld(i, 2)] for i in 1:2n]
    return Window(n, expand_option(kernel, n, 1, Val(3)), expand_option(stride, n, 1, Val(3)), expand_option(sides, 2n, 0, Val(6)),
                  expand_option(dilation, n, 1, Val(3)))
end

"An option for `n` places, which may be one integer for all, as a tuple whose further places are `default`."
expand_option(option, n, default, places) =
    ntuple(i -> i > n ? default : option isa Integer ? Int(option) : Int(option[i]), places)

"The size of what `w` makes of a volume of size `volume`."
output_size(w::Window, volume) = ntuple(i -> output_length(w, volume, i), Val(3))

function output_length(w, volume, i)
    room = volume[i] + w.pad[2i-1] + w.pad[2i] - w.dilation[i] * (w.kernel[i] - 1) - 1
    room >= 0 || throw(DimensionMismatch(
        "a kernel of $(w.kernel[1:w.spatial]) is larger than its padded input of $(volume[1:w.spatial])"))
    return room ÷ w.stride[i] + 1
end

"Data of (W, C, N), (W, H, C, N) or (W, H, D, C, N) as the last of these."
function as_volumes(x::Array{Float32}, w::Window)
    ndims(x) == w.spatial + 2 ||
        throw(DimensionMismatch("$(w.spatial + 2) dimensions are expected, not $(ndims(x))"))
    return reshape(x, spatial_size(x)..., size(x, ndims(x) - 1), size(x, ndims(x)))
end

"The spatial size of `x` in three dimensions."
spatial_size(x::Array{Float32,N}) where {N} = (N > 2 ? size(x, 1) : 1, N > 3 ? size(x, 2) : 1, N > 4 ? size(x, 3) : 1)

"`y` of five dimensions with as many as `x`."
restore_rank(y, x::Array{Float32,N}) where {N} = reshape(y, ntuple(i -> size(y, i <= N - 2 ? i : i + 5 - N), Val(N)))

"""
`y = f(y, x)` for every output position of one volume whose window has its `tap` (column, row and
slice in the kernel, from 0) within the input; positions whose tap falls on the padding are left alone.
Volumes are given by their offset in the array and their size. Everything that slides is made of this
loop: it runs along rows, which the processor's vector units like.
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

"[`sweep!`](@ref) the other way: `x += y` at the input position that each output position's tap falls on."
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

"The output positions in each dimension whose `tap` falls on the input, and how far it is from the window's place."
@inline function tap_range(y_size, x_size, w, tap)
    shift = (tap[1] * w.dilation[1] - w.pad[1], tap[2] * w.dilation[2] - w.pad[3], tap[3] * w.dilation[3] - w.pad[5])
    columns = valid_outputs(shift[1], w.stride[1], x_size[1], y_size[1])
    rows = valid_outputs(shift[2], w.stride[2], x_size[2], y_size[2])
    slices = valid_outputs(shift[3], w.stride[3], x_size[3], y_size[3])
    return columns, rows, slices, shift
end

"The output positions (from 0) whose input position, `i * stride + shift`, is one of `0:n-1`."
@inline function valid_outputs(shift, stride, n, outputs)
    # Divisions are what a tap of a small volume takes most time for.
    first, last = stride == 1 ? (-shift, n - 1 - shift) : (-floor_div(shift, stride), floor_div(n - 1 - shift, stride))
    return max(0, first):min(outputs - 1, last)
end

"`fld(a, b)` for a positive `b`: Base's, as its `ntuple`, is called with boxed numbers by a package on Julia 1.5."
@inline floor_div(a, b) = a ÷ b - (a % b < 0)

"The numbers in a volume of such a size: what `prod` gives, which is called with boxed numbers, too."
@inline element_count((width, height, depth)) = width * height * depth

"Where a row of output positions begins in the output, and where in the input."
@inline function row_offsets(y_offset, y_size, x_offset, x_size, w, shift, row, slice)
    to = y_offset + (slice * y_size[2] + row) * y_size[1] + 1
    below = (slice * w.stride[3] + shift[3]) * x_size[2] + row * w.stride[2] + shift[2]
    return to, x_offset + below * x_size[1] + shift[1] + 1
end
