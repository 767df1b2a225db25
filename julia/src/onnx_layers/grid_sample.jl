# ONNX's GridSample.

export GridSample

"""
    GridSample(mode, padding, align_corners)

ONNX's GridSample: (x, grid). Sample `x` at the places that `grid` has, from -1 to 1, for each element of the result. `mode` is
`"nearest"`, `"linear"` or `"cubic"`; `padding`, what is outside of `x`, is `"zeros"`, `"border"` or `"reflection"`. Throws
`DimensionMismatch` if shapes do not fit.
"""
struct GridSample
    mode::String
    padding::String
    align_corners::Bool
end

function (g::GridSample)(@nospecialize(x), @nospecialize(grid))
    sizes, wanted = shape_of(x), shape_of(grid)
    n = length(sizes) - 2
    length(wanted) == length(sizes) && wanted[1] == n && wanted[end] == sizes[end] ||
        throw(DimensionMismatch("a grid of shape $(reverse(size(grid))) for a tensor of shape $(reverse(size(x)))"))
    y = acquire(Tuple([wanted[2:end-1]; sizes[end-1:end]]))
    points = prod(wanted[2:end-1])
    sample!(reshape(y, points, sizes[end-1], sizes[end]), reshape(x, prod(sizes[1:n]), sizes[end-1], sizes[end]),
            reshape(grid, n, points, sizes[end]), sizes[1:n], g)
    return y
end

allocates_output(::GridSample) = true

"`y` is (points, channels, images), `x` (pixels, channels, images) and `grid` (dimensions, points, images)."
function sample!(y, x, grid, sizes, g)
    taps = g.mode == "nearest" ? 1 : g.mode == "linear" ? 2 : 4
    n = length(sizes)
    places, weights = Matrix{Int}(undef, taps, n), Matrix{Float32}(undef, taps, n)
    for image in axes(y, 3), point in axes(y, 1)
        for d in 1:n
            find_taps!(view(places, :, d), view(weights, :, d), grid[d, point, image], sizes[d], g)
        end
        for channel in axes(y, 2)
            y[point, channel, image] = 0
        end
        for number in 0:taps^n-1
            pixel, weight, step, rest = 1, 1.0f0, 1, number
            for d in 1:n
                rest, tap = divrem(rest, taps)
                weight *= places[tap+1, d] < 0 ? 0.0f0 : weights[tap+1, d]
                pixel += step * max(0, places[tap+1, d])
                step *= sizes[d]
            end
            weight == 0 && continue
            for channel in axes(y, 2)
                y[point, channel, image] += weight * x[pixel, channel, image]
            end
        end
    end
    return nothing
end

"""
Store the pixels, from 0, along one dimension of `n` pixels that contribute to the coordinate `at`, from -1 to 1, and their
weights. A pixel is -1 if it is outside and counts as zero.
"""
function find_taps!(places, weights, at, n, g)
    low, high = g.align_corners ? (0.0f0, n - 1.0f0) : (-0.5f0, n - 0.5f0)
    position = g.align_corners ? (at + 1) / 2 * (n - 1) : ((at + 1) * n - 1) / 2
    g.mode == "nearest" && (position = round(position))
    if !(low <= position <= high)
        g.padding == "border" && (position = clamp(position, 0.0f0, n - 1.0f0))
        g.padding == "reflection" && (position = reflected(position, low, high))
    end
    if !isfinite(position)
        fill!(places, -1)
        return nothing
    end
    start = floor(position)
    part = position - start
    if g.mode == "nearest"
        weights[1] = 1
    elseif g.mode == "linear"
        weights[1], weights[2] = 1 - part, part
    else
        for tap in 1:4
            weights[tap] = cubic(abs(part - tap + 2), -0.75f0)
        end
        start -= 1
    end
    for tap in eachindex(places)
        pixel = clamp(start + tap - 1, -1.0f9, 1.0f9)
        inside = 0 <= pixel < n
        places[tap] = inside ? Int(pixel) : g.padding == "border" ? clamp(Int(pixel), 0, n - 1) :
            g.padding == "reflection" ? clamp(trunc(Int, reflected(pixel, low, high)), 0, n - 1) : -1
    end
    return nothing
end

"`at` reflected at `low` and `high` until it is between them."
function reflected(at, low, high)
    range = high - low
    range > 0 || return low
    isfinite(at) || return at
    beyond = at < low ? low - at : at - high
    beyond <= 0 && return at
    turns, rest = divrem(beyond, range)
    return (turns % 2 == 0) == (at < low) ? low + rest : high - rest
end
