# Convolution with one kernel a channel: too little work for a product of matrices, so the taps are added up.

"""
How a plane lies in a part's buffer with its padding, so that no tap is a special case: with strides, as a plane of `size`
for each phase, so that what neighbouring outputs see lies side by side. Of each phase along the rows there are `numbers`.

The buffer has the phases, then from `sums` on the output in a `run`: all its rows at once, with numbers between them that
nobody wants, as rows of small planes are short. With a stride along the rows there follows a `stage`, for whole rows
before they are dealt out. `rows` tells where each row of the input goes, `starts` where what each tap sees begins.
"""
struct Phases
    stride::Int
    size::NTuple{3,Int}
    numbers::Int
    run::Int
    sums::Int
    stage::Int
    rows::Vector{Int}
    starts::Vector{Int}
end

"A processor with vectors takes so many numbers at once: a loop over a multiple of it leaves none to be taken one by one."
const ROUND = 64

whole_rounds(n) = cld(n, ROUND) * ROUND

function Phases(x_size, y_size, w::Window)
    size = ntuple(i -> cld(x_size[i] + w.pad[2i-1] + w.pad[2i], w.stride[i]), Val(3))
    numbers = prod(size) * w.stride[2] * w.stride[3]
    run = whole_rounds(place((y_size[1], y_size[2] - 1, y_size[3] - 1), size))
    sums = whole_rounds(numbers * w.stride[1]) + ROUND
    stage = w.stride[1] == 1 ? 0 : sums + run
    rows, starts = Int[], Int[]
    for slice in 0:x_size[3]-1, row in 0:x_size[2]-1
        line = phase_place((0, row + w.pad[3], slice + w.pad[5]), w.stride, size)
        push!(rows, stage + line * w.stride[1] + w.pad[1])
    end
    for slice in 0:w.kernel[3]-1, row in 0:w.kernel[2]-1, column in 0:w.kernel[1]-1
        push!(starts, phase_place((column, row, slice) .* w.dilation, w.stride, size))
    end
    return Phases(w.stride[1], size, numbers, run, sums, stage, rows, starts)
end

"Where a position of the padded plane lies in the planes of the phases."
phase_place(position, stride, size) =
    prod(size) * place(reverse(position .% stride), reverse(stride)) + place(position .÷ stride, size)

"Where (column, row, slice) lies in a volume, all from 0."
place((column, row, slice), volume) = (slice * volume[2] + row) * volume[1] + column

"How many taps are added up in one pass: all of a small kernel, or a row of it."
taps_a_pass(w::Window) = prod(w.kernel) <= 25 ? prod(w.kernel) : w.kernel[1]

"How many numbers of an output are made before their activation: small planes make short runs, and these stay in the cache."
const ACTIVATED_AT_ONCE = 1 << 15

function depthwise!(y, x, c::Conv)
    phases, pass = Phases(extent(x), extent(y), c.window), Val(taps_a_pass(c.window))
    planes, pixels = size(y, 4) * size(y, 5), prod(extent(y))
    in_parts(planes, length(y) * (depth_of(c.weight) + NUMBER_COST)) do part, items
        needed = phases.sums + phases.run + phases.stage
        buffer = scratch(part, needed)
        fill_range!(buffer, 0, needed)
        together = max(1, ACTIVATED_AT_ONCE ÷ pixels)
        for first in items[1]-1:together:items[end]-1
            last = min(first + together, items[end]) - 1
            sum_planes!(y, x, c, first:last, buffer, phases, pass)
            activate!(y, c.σ, first * pixels, (last - first + 1) * pixels)
        end
    end
    return nothing
end

function sum_planes!(y, x, c, planes, buffer, phases, pass_size::Val{P}) where {P}
    taps, share = length(phases.starts), size(y, 4) ÷ c.groups
    for plane in planes
        n, o = plane ÷ size(y, 4), plane % size(y, 4)
        copy_rows!(buffer, phases.rows, x, size(x, 4) * n + o ÷ share)
        phases.stage == 0 || deal!(buffer, phases)
        fill_range!(buffer, phases.sums, phases.run, c.bias === false ? 0.0f0 : c.bias[o+1])
        for pass in 0:P:taps-1
            starts = taken(phases.starts, pass + 1, 1, pass_size)
            # Backwards: this is the flip of the kernel.
            add_taps!(buffer, phases, starts, taken(c.weight, (o + 1) * taps - pass, -1, pass_size))
        end
        copy_sums!(y, plane, buffer, phases)
    end
    return nothing
end

"The numbers of `x` at `place` and on, `step` apart, as a tuple of `P`."
@generated function taken(x, place, step, ::Val{P}) where {P}
    numbers = Expr(:tuple)
    for i in 0:P-1
        push!(numbers.args, :(@inbounds x[place+$i*step]))
    end
    return numbers
end

function copy_rows!(buffer, rows, x, plane)
    from = plane * volume(extent(x)) + 1
    for row in rows
        copy_numbers!(buffer, row + 1, x, from, size(x, 1))
        from += size(x, 1)
    end
    return nothing
end

"Deal the numbers of the stage out to the phases along the rows."
function deal!(buffer, phases)
    stride, n, stage = phases.stride, phases.numbers, phases.stage
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

function add_taps!(buffer, phases, starts, taps)
    sums = phases.sums
    @inbounds @simd ivdep for i in 1:phases.run
        buffer[sums+i] = tapped(buffer[sums+i], buffer, i, starts, taps)
    end
    return nothing
end

@inline tapped(sum, x, i, ::Tuple{}, ::Tuple{}) = sum
@inline tapped(sum, x, i, starts::Tuple, taps::Tuple) =
    @inbounds tapped(muladd(taps[1], x[starts[1]+i], sum), x, i, Base.tail(starts), Base.tail(taps))

"The sums that are wanted, to a plane of `y`."
function copy_sums!(y, plane, buffer, phases)
    to = plane * volume(extent(y)) + 1
    for slice in 0:size(y, 3)-1, row in 0:size(y, 2)-1
        copy_numbers!(y, to, buffer, phases.sums + place((0, row, slice), phases.size) + 1, size(y, 1))
        to += size(y, 1)
    end
    return nothing
end
