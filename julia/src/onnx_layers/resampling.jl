# Resizing. ONNX's Resize is separable: each axis in turn is multiplied by a sparse matrix. Semantics are those of ONNX's
# operator reference and, where it is ambiguous, of ONNX's reference implementation.

export Resize

"""
ONNX's Resize: (x, roi, scales, sizes). Either scales or sizes are given, and roi only if `coordinates` is
`tf_crop_and_resize`. All of them are for `axes`, or for every axis if `axes` is empty.

`nearest` may also be `simple`, which is how opset 10 rounded. Throws `DimensionMismatch` or `ArgumentError` if the inputs
do not fit.
"""
struct Resize
    mode::String
    coordinates::String
    nearest::String
    policy::String
    antialias::Bool
    exclude_outside::Bool
    cubic_a::Float32
    extrapolation_value::Float32
    axes::Vector{Int}
end

function (r::Resize)(x, roi=nothing, scales=nothing, sizes=nothing)
    dims = isempty(r.axes) ? (ndims(x):-1:1) : [dimension(x, axis) for axis in r.axes]
    lengths, exact, factors = output_lengths(r, [size(x, d) for d in dims], scales, sizes)
    for (i, d) in enumerate(dims)
        bounds = r.coordinates == "tf_crop_and_resize" ? (roi[i], roi[i+length(dims)]) : (0.0f0, 1.0f0)
        factors[i] == 1 && lengths[i] == size(x, d) && bounds == (0, 1) && continue
        x = resample(x, d, taps(r, size(x, d), lengths[i], exact[i], factors[i], bounds), r.extrapolation_value)
    end
    return x
end

"For each axis the new length, the same before rounding, and the scale factor."
function output_lengths(r, old, scales, sizes)
    scaled = scales !== nothing && !isempty(scales)  # an empty input means an absent one: opset 11 had no other way
    n = scaled ? scales : sizes
    n === nothing && throw(ArgumentError("neither scales nor sizes are given"))
    length(n) == length(old) || throw(DimensionMismatch("$(length(n)) scales or sizes for $(length(old)) axes"))
    factors = scaled ? Float32.(vec(n)) : Float32.(vec(n)) ./ old
    r.policy == "not_larger" && !scaled && fill!(factors, minimum(factors))
    r.policy == "not_smaller" && !scaled && fill!(factors, maximum(factors))
    exact = scaled || r.policy != "stretch" ? factors .* old : Float32.(vec(n))
    return floor.(Int, scaled ? exact : exact .+ 0.5f0), exact, factors
end

"""
The sparse matrix for one axis. Output `j` is the sum of `weight[i, j]` times the input at `source[i, j]`, over `i`. If
`source[1, j]` is 0, the output is outside the input.
"""
struct Taps
    source::Matrix{Int}
    weight::Matrix{Float32}
end

"The matrix for an axis of length `n` that is resized to `length`."
function taps(r, n, length, exact, factor, bounds)
    kernel, first, last = make_kernel(r, factor)
    t = Taps(zeros(Int, last - first + 1, length), zeros(Float32, last - first + 1, length))
    for j in 1:length
        at = input_coordinate(r.coordinates, j - 1, n, length, exact, factor, bounds)
        r.coordinates == "tf_crop_and_resize" && !(0 <= at <= n - 1) && continue
        left = r.mode == "nearest" ? round_nearest(r.nearest, at, factor) : floor(Int, at)
        for (i, place) in enumerate(left+first:left+last)
            t.source[i, j] = clamp(place, 0, n - 1) + 1
            t.weight[i, j] = r.exclude_outside && !(0 <= place < n) ? 0.0 : kernel(place - at)
        end
        total = sum(view(t.weight, :, j))
        for i in 1:size(t.weight, 1)
            t.weight[i, j] /= total
        end
    end
    return t
end

"The weight of an input by its distance, and the first and last input with a weight, relative to the left neighbour."
function make_kernel(r, factor)
    r.mode == "nearest" && return distance -> 1.0, 0, 0
    weight = r.mode == "linear" ? distance -> max(0.0, 1 - abs(distance)) : distance -> cubic(abs(distance), r.cubic_a)
    narrow = r.antialias && factor < 1 ? Float64(factor) : 1.0
    first = floor(Int, (r.mode == "linear" ? -1 : -2) / narrow) + 1
    return distance -> weight(narrow * distance), first, 1 - first
end

"The cubic convolution kernel with the free parameter `a` (Keys, 1981)."
cubic(t, a) = t <= 1 ? ((a + 2) * t - (a + 3)) * t^2 + 1 : t < 2 ? ((a * t - 5a) * t + 8a) * t - 4a : 0.0

"The coordinate in the input, from 0, of position `j` of the output. In Float32, as in onnxruntime."
function input_coordinate(mode, j, n, length, exact, factor, bounds)
    mode == "half_pixel" && return (j + 0.5f0) / factor - 0.5f0
    mode == "pytorch_half_pixel" && return exact == 1 ? 0.0f0 : (j + 0.5f0) / factor - 0.5f0
    mode == "half_pixel_symmetric" && return n / 2.0f0 * (1 - length / exact) + (j + 0.5f0) / factor - 0.5f0
    mode == "asymmetric" && return j / factor
    mode == "align_corners" && return exact == 1 ? 0.0f0 : j * (n - 1) / (exact - 1)
    from, to = bounds
    return exact == 1 ? (from + to) * (n - 1) / 2 : from * (n - 1) + j * (to - from) * (n - 1) / (exact - 1)
end

"Round the coordinate `at` to an index, by ONNX's nearest_mode."
function round_nearest(mode, at, factor)
    mode == "simple" && return factor < 1 ? ceil(Int, at) : floor(Int, at)
    mode == "floor" && return floor(Int, at)
    mode == "ceil" && return ceil(Int, at)
    return mode == "round_prefer_floor" ? ceil(Int, at - 0.5f0) : floor(Int, at + 0.5f0)
end

"Multiply `x` along dimension `d` by the matrix `t`."
function resample(x, d, t::Taps, extrapolation_value)
    z = flatten_around(x, d)
    y = similar(x, size(z, 1), size(t.source, 2), size(z, 3))
    size(y, 1) == 1 ? resample_rows!(y, z, t, extrapolation_value) : resample_blocks!(y, z, t, extrapolation_value)
    return reshape(y, size(x)[1:d-1]..., size(y, 2), size(x)[d+1:end]...)
end

function resample_rows!(y, z, t, extrapolation_value)
    @inbounds for k in axes(y, 3), j in axes(y, 2)
        total = 0.0f0
        for i in axes(t.source, 1)
            t.source[1, j] == 0 || (total += t.weight[i, j] * z[1, t.source[i, j], k])
        end
        y[1, j, k] = t.source[1, j] == 0 ? extrapolation_value : total
    end
end

function resample_blocks!(y, z, t, extrapolation_value)
    for k in axes(y, 3), j in axes(y, 2)
        @inbounds @simd for p in axes(y, 1)
            y[p, j, k] = t.source[1, j] == 0 ? extrapolation_value : 0.0f0
        end
        t.source[1, j] == 0 && continue
        for i in axes(t.source, 1)
            source, weight = t.source[i, j], t.weight[i, j]
            @inbounds @simd for p in axes(y, 1)
                y[p, j, k] += weight * z[p, source, k]
            end
        end
    end
end
