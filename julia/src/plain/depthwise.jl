# Convolution with one kernel a channel: too little work for a product of matrices, so the taps are added up.

"""
How a plane lies in a part's buffer with its padding, so that no tap is a special case: with strides, as a plane of `size`
for each phase, so that what neighbouring outputs see lies side by side. Of each phase along the rows there are `numbers`.

The buffer has the phases, then from `sums` on the output in a `run`: all its rows at once, with numbers between them that
nobody wants, as rows of small planes are short. With a stride along the rows there follows a `stage`, for whole rows
before they are dealt out. `rows` tells where each row of the input goes, `starts` where what each tap sees begins.
"""
struct PhaseLayout
    stride::Int
    phase_size::NTuple{3,Int}
    phase_length::Int
    sums_length::Int
    sums_offset::Int
    staging_offset::Int
    row_starts::Vector{Int}
    tap_starts::Vector{Int}
end

"A processor with vectors takes so many numbers at once: a loop over a multiple of it leaves none to be taken one by one."
const VECTOR_MULTIPLE = 64

round_up(n) = cld(n, VECTOR_MULTIPLE) * VECTOR_MULTIPLE

function PhaseLayout(x_size, y_size, w::Window)
    size = ntuple(i -> cld(x_size[i] + w.pad[2i-1] + w.pad[2i], w.stride[i]), Val(3))
    numbers = prod(size) * w.stride[2] * w.stride[3]
    run = round_up(linear_index((y_size[1], y_size[2] - 1, y_size[3] - 1), size))
    sums = round_up(numbers * w.stride[1]) + VECTOR_MULTIPLE
    stage = w.stride[1] == 1 ? 0 : sums + run
    rows, starts = Int[], Int[]
    for slice in 0:x_size[3]-1, row in 0:x_size[2]-1
        line = phase_index((0, row + w.pad[3], slice + w.pad[5]), w.stride, size)
        push!(rows, stage + line * w.stride[1] + w.pad[1])
    end
    for slice in 0:w.kernel[3]-1, row in 0:w.kernel[2]-1, column in 0:w.kernel[1]-1
        push!(starts, phase_index((column, row, slice) .* w.dilation, w.stride, size))
    end
    return PhaseLayout(w.stride[1], size, numbers, run, sums, stage, rows, starts)
end

"Where a position of the padded plane lies in the planes of the phases."
phase_index(position, stride, size) =
    prod(size) * linear_index(reverse(position .% stride), reverse(stride)) + linear_index(position .÷ stride, size)

"Where (column, row, slice) lies in a volume, all from 0."
linear_index((column, row, slice), volume) = (slice * volume[2] + row) * volume[1] + column

"How many taps are added up in one pass: all of a small kernel, or a row of it."
taps_per_pass(w::Window) = prod(w.kernel) <= 25 ? prod(w.kernel) : w.kernel[1]

"How many numbers of an output are made before their activation: small planes make short runs, and these stay in the cache."
const ACTIVATION_BLOCK = 1 << 15

function depthwise!(y, x, c::Conv)
    phases, pass = PhaseLayout(spatial_size(x), spatial_size(y), c.window), Val(taps_per_pass(c.window))
    planes, pixels = size(y, 4) * size(y, 5), prod(spatial_size(y))
    parallel_for(planes, length(y) * (inner_length(c.weight) + ELEMENT_COST)) do task, items
        needed = phases.sums_offset + phases.sums_length + phases.staging_offset
        buffer = workspace(task, needed)
        fill_range!(buffer, 0, needed)
        together = max(1, ACTIVATION_BLOCK ÷ pixels)
        for first in items[1]-1:together:items[end]-1
            last = min(first + together, items[end]) - 1
            sum_planes!(y, x, c, first:last, buffer, phases, pass)
            activate!(y, c.σ, first * pixels, (last - first + 1) * pixels)
        end
    end
    return nothing
end

function sum_planes!(y, x, c, planes, buffer, phases, pass_size::Val{P}) where {P}
    taps, share = length(phases.tap_starts), size(y, 4) ÷ c.groups
    for plane in planes
        n, o = plane ÷ size(y, 4), plane % size(y, 4)
        copy_rows!(buffer, phases.row_starts, x, size(x, 4) * n + o ÷ share)
        phases.staging_offset == 0 || deinterleave!(buffer, phases)
        fill_range!(buffer, phases.sums_offset, phases.sums_length, c.bias === false ? 0.0f0 : c.bias[o+1])
        for pass in 0:P:taps-1
            starts = load_strided(phases.tap_starts, pass + 1, 1, pass_size)
            # Backwards: this is the flip of the kernel.
            add_taps!(buffer, phases, starts, load_strided(c.weight, (o + 1) * taps - pass, -1, pass_size))
        end
        copy_sums!(y, plane, buffer, phases)
    end
    return nothing
end

"The numbers of `x` at `place` and on, `step` apart, as a tuple of `P`."
@generated function load_strided(x, place, step, ::Val{P}) where {P}
    numbers = Expr(:tuple)
    for i in 0:P-1
        push!(numbers.args, :(@inbounds x[place+$i*step]))
    end
    return numbers
end

function copy_rows!(buffer, rows, x, plane)
    from = plane * element_count(spatial_size(x)) + 1
    for row in rows
        copy_elements!(buffer, row + 1, x, from, size(x, 1))
        from += size(x, 1)
    end
    return nothing
end

"Deal the numbers of the stage out to the phases along the rows."
function deinterleave!(buffer, phases)
    stride, n, stage = phases.stride, phases.phase_length, phases.staging_offset
    if stride == 2
        @inbounds @simd ivdep for i in 1:n
            buffer[i] = buffer[stage+2i-1]
            buffer[n+i] = buffer[stage+2i]
        end
    else
        for phase in 0:stride-1
            copy_row_strided!(buffer, phase * n + 1, buffer, stage + phase + 1, stride, 0:n-1)
        end
    end
    return nothing
end

function add_taps!(buffer, phases, starts, taps)
    sums = phases.sums_offset
    @inbounds @simd ivdep for i in 1:phases.sums_length
        buffer[sums+i] = add_tap_products(buffer[sums+i], buffer, i, starts, taps)
    end
    return nothing
end

@inline add_tap_products(sum, x, i, ::Tuple{}, ::Tuple{}) = sum
@inline add_tap_products(sum, x, i, starts::Tuple, taps::Tuple) =
    @inbounds add_tap_products(muladd(taps[1], x[starts[1]+i], sum), x, i, Base.tail(starts), Base.tail(taps))

"The sums that are wanted, to a plane of `y`."
function copy_sums!(y, plane, buffer, phases)
    to = plane * element_count(spatial_size(y)) + 1
    for slice in 0:size(y, 3)-1, row in 0:size(y, 2)-1
        copy_elements!(y, to, buffer, phases.sums_offset + linear_index((0, row, slice), phases.phase_size) + 1, size(y, 1))
        to += size(y, 1)
    end
    return nothing
end
