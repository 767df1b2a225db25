# Convolution with one kernel a channel: too little work for a product of matrices, so the taps are added up.

"""
How a plane with its padding lies in a task's buffer, so that no tap is a special case and what neighbouring outputs
see lies side by side: with strides, as a plane of `size` for each phase. All rows of all phases of a column come one
after the other; `lines` is their number. A row of the input is copied to its place as it is, so with a stride along
rows there is first a `stage` of all rows, whose columns are then dealt out to the phases.
"""
struct Phases
    stride::NTuple{3,Int}
    size::NTuple{3,Int}
    lines::Int
end

function Phases(volume, w::Window)
    size = ntuple(i -> cld(volume[i] + w.pad[2i-1] + w.pad[2i], w.stride[i]), Val(3))
    return Phases(w.stride, size, size[2] * size[3] * w.stride[2] * w.stride[3])
end

"How many numbers all rows of a phase of a column have."
numbers(p::Phases) = p.lines * p.size[1]

"The place (from 0) of a row of the padded plane among all rows."
line(p::Phases, row, slice) =
    ((slice % p.stride[3] * p.stride[2] + row % p.stride[2]) * p.size[3] + slice ÷ p.stride[3]) * p.size[2] + row ÷ p.stride[2]

"Where (column, row, slice) of the padded plane lies, all from 0."
start(p::Phases, (column, row, slice)) =
    column % p.stride[1] * numbers(p) + line(p, row, slice) * p.size[1] + column ÷ p.stride[1]

"Loops go over a multiple of this many numbers: as many as the processor takes in one round, for the rest it takes one by one."
const ROUND = 64

whole_rounds(n) = cld(n, ROUND) * ROUND

"How many taps are added up in one pass: all of a small kernel, or a row of it."
taps_a_pass(w::Window) = prod(w.kernel) <= 25 ? prod(w.kernel) : w.kernel[1]

function depthwise!(y, x, c::Conv, passing::Val)
    w, pixels, share = c.window, prod(extent(y)), size(y, 4) ÷ c.groups
    phases = Phases(extent(x), w)
    starts = [start(phases, (i, j, k) .* w.dilation) for i in 0:w.kernel[1]-1, j in 0:w.kernel[2]-1, k in 0:w.kernel[3]-1]
    lines = [line(phases, j + w.pad[3], k + w.pad[5]) for j in 0:size(x, 2)-1, k in 0:size(x, 3)-1]
    # All rows of an output plane are one run, with numbers between them that nobody wants: rows of small planes are short.
    run = whole_rounds(((size(y, 3) - 1) * phases.size[2] + size(y, 2) - 1) * phases.size[1] + size(y, 1))
    sums = whole_rounds(numbers(phases) * w.stride[1]) + ROUND
    stage = w.stride[1] == 1 ? 0 : sums + run
    in_parts(size(y, 4) * size(y, 5), length(y) * depth_of(c.weight)) do part, items
        buffer = scratch(part, stage + sums + run)
        fill_range!(buffer, 0, stage + sums)
        active = items[1] - 1
        for plane in items .- 1
            n, o = divrem(plane, size(y, 4))
            copy_rows!(buffer, stage + w.pad[1], phases.size[1] * w.stride[1], lines, x, size(x, 4) * n + o ÷ share)
            stage == 0 || deal!(buffer, stage, numbers(phases), w.stride[1])
            fill_range!(buffer, sums, run, c.bias === false ? 0.0f0 : c.bias[o+1])
            add_kernel!(buffer, sums, run, starts, c.weight, o * length(starts), passing)
            copy_plane!(y, plane, buffer, sums, phases)
            # Several small planes at once, for they are short runs.
            if plane == items[end] - 1 || (plane - active) * pixels >= 2048
                activate!(y, c.σ, active * pixels, (plane + 1 - active) * pixels)
                active = plane + 1
            end
        end
    end
    return nothing
end

"A plane of `x` to the buffer, each row to its line after `offset`."
function copy_rows!(buffer, offset, width, lines, x, plane)
    from = plane * prod(extent(x)) + 1
    for line in lines
        copyto!(buffer, offset + line * width + 1, x, from, size(x, 1))
        from += size(x, 1)
    end
    return nothing
end

"Deal the numbers after `stage` out to `stride` phases of `n` numbers, at the beginning of the buffer."
function deal!(buffer, stage, n, stride)
    if stride == 2
        @inbounds @simd ivdep for i in 1:n
            buffer[i] = buffer[stage+2i-1]
            buffer[n+i] = buffer[stage+2i]
        end
    else
        for phase in 0:stride-1
            copy_row!(buffer, phase * n + 1, buffer, stage + phase + 1, stride, 0:n-1)
        end
    end
    return nothing
end

"Add to `n` sums what all taps of a channel see; its weights come after `offset` and are turned about, which is the flip of the kernel."
function add_kernel!(buffer, sums, n, starts, weight, offset, ::Val{P}) where {P}
    taps = length(starts)
    for pass in 0:P:taps-1
        add_taps!(buffer, sums, n, ntuple(i -> @inbounds(starts[pass+i]), Val(P)),
                  ntuple(i -> @inbounds(weight[offset+taps-pass-i+1]), Val(P)))
    end
    return nothing
end

function add_taps!(buffer, sums, n, starts, taps)
    @inbounds @simd ivdep for i in 1:n
        buffer[sums+i] = tapped(buffer[sums+i], buffer, i, starts, taps)
    end
    return nothing
end

@inline tapped(sum, x, i, ::Tuple{}, ::Tuple{}) = sum
@inline tapped(sum, x, i, starts::Tuple, taps::Tuple) =
    @inbounds tapped(muladd(taps[1], x[starts[1]+i], sum), x, i, Base.tail(starts), Base.tail(taps))

"The sums that are wanted to a plane of `y`."
function copy_plane!(y, plane, buffer, sums, phases)
    to = plane * prod(extent(y)) + 1
    for slice in 0:size(y, 3)-1, row in 0:size(y, 2)-1
        copyto!(y, to, buffer, sums + (slice * phases.size[2] + row) * phases.size[1] + 1, size(y, 1))
        to += size(y, 1)
    end
    return nothing
end
