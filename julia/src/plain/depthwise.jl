# Depthwise convolution, with one kernel for each output channel. There is too little work for a matrix product, so the
# taps are summed by loops.

"""
    PhaseLayout(x_size, y_size, w)

How a task's workspace holds one padded input plane, so that the loop over a tap reads contiguous numbers.

A convolution with strides splits the plane into phases (a polyphase decomposition): each phase has every `stride`th
position of each dimension. Without strides there is one phase, the plane itself.

- `stride`: the stride along the rows; `phase_size`: the size of a phase in three dimensions.
- `phase_length`: the number of elements of all phases with the same position along the rows.
- `sums_length`, `sums_offset`: where the output is summed. It has the phase's row length, so that all rows are summed by
  one loop: rows of small planes are short. The numbers between the rows are not used.
- `staging_offset`: where whole input rows are stored before they are split into phases; 0 with a stride of 1.
- `row_starts`: the offset that each input row is copied to. `tap_starts`: the offset that each tap begins to read at.
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

"Loop lengths are multiples of this, so that vector instructions leave no remainder."
const VECTOR_MULTIPLE = 64

"`n`, rounded up to a multiple of `VECTOR_MULTIPLE`."
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

"The index, from 0, at which the phases hold a `position`, from 0, of the padded plane."
phase_index(position, stride, size) =
    prod(size) * linear_index(reverse(position .% stride), reverse(stride)) + linear_index(position .÷ stride, size)

"The linear index of (column, row, slice) in a volume of size `volume`, all counted from 0."
linear_index((column, row, slice), volume) = (slice * volume[2] + row) * volume[1] + column

"How many taps are summed in one pass over the plane: all of a small kernel, or one row of a large one."
taps_per_pass(w::Window) = prod(w.kernel) <= 25 ? prod(w.kernel) : w.kernel[1]

"""
How many output numbers are computed before the activation is applied: several small planes, which are then still in
the cache.
"""
const ACTIVATION_BLOCK = 1 << 15

"The convolution `c` of `x`, with bias and activation, to `y`. Arrays have five dimensions."
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

"The convolution of the planes `planes`, counted from 0, with bias but without activation. A pass sums `P` taps."
function sum_planes!(y, x, c, planes, buffer, phases, pass_size::Val{P}) where {P}
    taps, share = length(phases.tap_starts), size(y, 4) ÷ c.groups
    for plane in planes
        n, o = plane ÷ size(y, 4), plane % size(y, 4)
        copy_rows!(buffer, phases.row_starts, x, size(x, 4) * n + o ÷ share)
        phases.staging_offset == 0 || deinterleave!(buffer, phases)
        fill_range!(buffer, phases.sums_offset, phases.sums_length, c.bias === false ? 0.0f0 : c.bias[o+1])
        for pass in 0:P:taps-1
            starts = load_strided(phases.tap_starts, pass + 1, 1, pass_size)
            # Backwards, which flips the kernel.
            add_taps!(buffer, phases, starts, load_strided(c.weight, (o + 1) * taps - pass, -1, pass_size))
        end
        copy_sums!(y, plane, buffer, phases)
    end
    return nothing
end

"The `P` numbers of `x` that begin at `place` and are `step` apart, as a tuple."
@generated function load_strided(x, place, step, ::Val{P}) where {P}
    numbers = Expr(:tuple)
    for i in 0:P-1
        push!(numbers.args, :(@inbounds x[place+$i*step]))
    end
    return numbers
end

"Copy the rows of input plane `plane`, from 0, to their places in the workspace."
@inline function copy_rows!(buffer, rows, x, plane)
    from = plane * element_count(spatial_size(x)) + 1
    for row in rows
        copy_elements!(buffer, row + 1, x, from, size(x, 1))
        from += size(x, 1)
    end
    return nothing
end

"Split the staged rows into the phases along the rows."
@inline function deinterleave!(buffer, phases)
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

"Add the products of the `taps` and the numbers under them to the sums."
@inline function add_taps!(buffer, phases, starts, taps)
    sums = phases.sums_offset
    @inbounds @simd ivdep for i in 1:phases.sums_length
        buffer[sums+i] = add_tap_products(buffer[sums+i], buffer, i, starts, taps)
    end
    return nothing
end

@inline add_tap_products(sum, x, i, ::Tuple{}, ::Tuple{}) = sum
@inline add_tap_products(sum, x, i, starts::Tuple, taps::Tuple) =
    @inbounds add_tap_products(muladd(taps[1], x[starts[1]+i], sum), x, i, Base.tail(starts), Base.tail(taps))

"Copy the sums to plane `plane`, from 0, of `y`, without the unused numbers between rows."
@inline function copy_sums!(y, plane, buffer, phases)
    to = plane * element_count(spatial_size(y)) + 1
    for slice in 0:size(y, 3)-1, row in 0:size(y, 2)-1
        copy_elements!(y, to, buffer, phases.sums_offset + linear_index((0, row, slice), phases.phase_size) + 1, size(y, 1))
        to += size(y, 1)
    end
    return nothing
end
