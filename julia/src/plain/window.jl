# The window that convolution and pooling slide over a plane of width times height.

"A window's `kernel`, `stride` and `dilation` as (w, h), its `pad` as (w before, w after, h before, h after)."
struct Window
    kernel::NTuple{2,Int}
    stride::NTuple{2,Int}
    pad::NTuple{4,Int}
    dilation::NTuple{2,Int}
    function Window(kernel, stride, pad, dilation)
        all(>=(1), kernel) && all(>=(1), stride) && all(>=(1), dilation) && all(>=(0), pad) ||
            throw(ArgumentError("a window of kernel $kernel, stride $stride, pad $pad, dilation $dilation is impossible"))
        new(kernel, stride, pad, dilation)
    end
end

"""
    window(kernel; stride, pad, dilation) -> Window

For one or two spatial dimensions; the options take what those of Flux's `Conv` take: one integer, one
for each dimension or, for `pad`, two for each. One dimension is two of which the second has size 1.
"""
function window(kernel; stride, pad, dilation)
    n = length(kernel)
    1 <= n <= 2 || throw(ArgumentError("the plain layers have no windows of $n spatial dimensions"))
    sides = pad isa Integer || length(pad) == 2n ? pad : [pad[cld(i, 2)] for i in 1:2n]
    return Window(two(kernel, n, 1), two(stride, n, 1), (two(sides, 2n, 0)..., two(sides, 2n, 0, 2)...), two(dilation, n, 1))
end

"Elements 1 and 2 after `skip` of an option for `n` places, which may be one integer for all; beyond them `default`."
two(option, n, default, skip=0) =
    ntuple(i -> skip + i > n ? default : option isa Integer ? Int(option) : Int(option[skip+i]), 2)

"The (width, height) of what `w` makes of a plane of (width, height) `plane`."
output_size(w::Window, plane) = (positions(w, plane, 1), positions(w, plane, 2))

function positions(w, plane, i)
    room = plane[i] + w.pad[2i-1] + w.pad[2i] - w.dilation[i] * (w.kernel[i] - 1) - 1
    room >= 0 || throw(DimensionMismatch("a kernel of $(w.kernel) is larger than its padded input of $plane"))
    return room ÷ w.stride[i] + 1
end

"Data of one spatial dimension (W, C, N) as (W, 1, C, N), of two as they are; and back."
planes(x::Array{Float32,4}) = x
planes(x::Array{Float32,3}) = reshape(x, size(x, 1), 1, size(x, 2), size(x, 3))
planes(x::Array{Float32}) = throw(DimensionMismatch("3 or 4 dimensions are expected, not $(ndims(x))"))
like(y::Array{Float32,4}, x::Array{Float32,4}) = y
like(y::Array{Float32,4}, x::Array{Float32,3}) = reshape(y, size(y, 1), size(y, 3), size(y, 4))

"""
    sweep!(f, y, y_offset, y_plane, x, x_offset, x_plane, w, tap)

`y = f(y, x)` for every output position of one plane whose window has its `tap` (column and row in
the kernel, from 0) within the input; positions whose tap falls on the padding are left alone.
Planes are given by their offset in the array and their (width, height). Everything that slides is
made of this loop: it runs along rows, which the processor's vector units like.
"""
@inline function sweep!(f::F, y, y_offset, y_plane, x, x_offset, x_plane, w::Window, tap) where {F}
    stride, rise = w.stride
    left = tap[1] * w.dilation[1] - w.pad[1]
    above = tap[2] * w.dilation[2] - w.pad[3]
    columns = inside(left, stride, x_plane[1], y_plane[1])
    for row in inside(above, rise, x_plane[2], y_plane[2])
        to = y_offset + row * y_plane[1] + 1
        from = x_offset + (row * rise + above) * x_plane[1] + left + 1
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

"The output positions (from 0) whose input position, `i * stride + shift`, is one of `0:n-1`."
inside(shift, stride, n, outputs) = max(0, cld(-shift, stride)):min(outputs - 1, fld(n - 1 - shift, stride))
