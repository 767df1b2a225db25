# Padding and cropping.

export Pad

"""
ONNX's Pad: (x, pads), (x, pads, value) or (x, pads, value, axes). `mode` is `constant`, `reflect`, `edge` or `wrap`.

`pads` are those before each axis, then those after each axis. Negative ones crop, which is done first. Throws
`DimensionMismatch` if they do not fit.
"""
struct Pad
    mode::String
end

function (p::Pad)(x, pads, value=nothing, axes=nothing)
    before, after = pads_of(x, pads, axes)
    for d in 1:ndims(x)
        crop = max(0, -before[d]) + max(0, -after[d])
        crop <= size(x, d) ||
            throw(DimensionMismatch("pads of $(vec(pads)) take more away than a tensor of $(reverse(size(x))) has"))
        crop > 0 && (x = take_along(x, d, max(0, -before[d]) .+ (1:size(x, d)-crop)))
    end
    p.mode == "constant" && return pad_constant(x, before, after, value === nothing ? zero(eltype(x)) : first(value))
    for d in 1:ndims(x)
        before[d] <= 0 && after[d] <= 0 || (x = take_along(x, d, source_indices(p.mode, before[d], after[d], size(x, d))))
    end
    return x
end

"The pads before and after each dimension, in Julia's order."
function pads_of(x, pads, axes)
    before, after = zeros(Int, ndims(x)), zeros(Int, ndims(x))
    list = axes === nothing ? (0:ndims(x)-1) : vec(axes)
    length(pads) == 2 * length(list) || throw(DimensionMismatch("$(length(pads)) pads for $(length(list)) axes"))
    for (i, axis) in enumerate(list)
        d = dimension(x, axis)
        before[d], after[d] = pads[i], pads[i+length(list)]
    end
    return before, after
end

"The elements of `x` at the indices `places` along dimension `d`."
function take_along(x, d, places)
    y = similar(x, Tuple(Int[k == d ? length(places) : size(x, k) for k in 1:ndims(x)]))
    take_along!(flatten_around(y, d), flatten_around(x, d), places)
    return y
end

function take_along!(y, x, places)
    for k in axes(y, 3), j in axes(y, 2)
        from = places[j]
        @inbounds @simd for i in axes(y, 1)
            y[i, j, k] = x[i, from, k]
        end
    end
    return nothing
end

"`x` surrounded by `value`. Negative pads count as 0."
function pad_constant(x, before, after, value)
    sizes = Int[size(x, d) + max(0, before[d]) + max(0, after[d]) for d in 1:ndims(x)]
    y = similar(x, Tuple(sizes))
    fill!(y, value)
    steps = contiguous_strides(sizes)
    copy_at_strides!(y, x, StridedLoop(shape_of(x), contiguous_strides(shape_of(x)), steps),
                     sum(Int[max(0, before[d]) * steps[d] for d in 1:ndims(x)]))
    return y
end

"Copy `x` into `y` from `offset` on, with the strides `b_strides` of the loop."
function copy_at_strides!(y, x, w, offset)
    n, step = w.sizes[1], w.b_strides[1]
    foreach_run(w) do _, i, j
        @inbounds @simd for l in 0:n-1
            y[offset+j+step*l+1] = x[i+w.a_strides[1]*l+1]
        end
    end
    return nothing
end

"The index in the input for each position of a padded dimension of length `n`, as in numpy.pad."
function source_indices(mode, before, after, n)
    n >= 1 || throw(DimensionMismatch("there is nothing to pad with"))
    return Int[source_index(mode, i, n) + 1 for i in -max(0, before):n+max(0, after)-1]
end

"The index, from 0, in the input for the position `i`, where the input is at `0:n-1`."
source_index(mode, i, n) =
    mode == "edge" ? clamp(i, 0, n - 1) : mode == "wrap" ? mod(i, n) : n - 1 - abs(mod(i, max(1, 2n - 2)) - (n - 1))
