# The input of a pointwise convolution that is computed while the convolution copies it.

"""
What a pointwise convolution reads instead of an array of (W, H, C, N): `λ.(scale .* x .+ shift)`, where `x` has the channels of
all `parts`, one after the other. `scale` and `shift` have a number for each channel, or for each channel of each image.
"""
struct PreparedInput{F}
    parts::Vector{Vector{Float32}}
    size::NTuple{4,Int}
    scale::Vector{Float32}
    shift::Vector{Float32}
    λ::F
end

spatial_size(x::PreparedInput) = (x.size[1], x.size[2], 1)

"The pointwise convolution `c` of `x`. Throws `DimensionMismatch` for another number of channels."
function (c::Conv)(x::PreparedInput)
    width, height, channels, images = x.size
    channels == size(c.weight, 4) || throw(DimensionMismatch("$c expects $(size(c.weight, 4)) channels, but got $channels"))
    y = acquire((width, height, 1, size(c.weight, 5), images))
    isempty(y) || convolve!(y, x, c)
    return reshape(y, width, height, size(c.weight, 5), images)
end

"Whether a convolution takes a [`PreparedInput`](@ref)."
takes_prepared(c::Conv) = is_pointwise(c.window) && c.window.spatial == 2 && c.groups == 1

function stage_tile!(buffer, x::PreparedInput, inputs, tile, l)
    fill_range!(buffer, 0, l.plane, 1.0f0)
    pixels, channel = element_count(l.x_size), 0
    for part in x.parts
        channels = length(part) ÷ (pixels * x.size[4])
        for k in 0:channels-1
            i = (x.size[3] * tile.image + channel) % length(x.scale) + 1
            stage_prepared!(buffer, l.plane * (1 + channel), part, pixels * (channels * tile.image + k) + tile.rows[1],
                            length(tile.rows), x.scale[i], x.shift[i], x.λ)
            channel += 1
        end
    end
    return nothing
end

@inline function stage_prepared!(buffer, to, x, from, n, scale, shift, λ::F) where {F}
    @inbounds @simd ivdep for i in 1:n
        buffer[to+i] = λ(muladd(x[from+i], scale, shift))
    end
    return nothing
end

# By 16, as Julia's loop would compute what is less than 64 one by one, such as all of a plane of 7x7.
@inline function stage_prepared!(buffer, to, x, from, n, scale, shift, ::typeof(identity))
    scales, shifts, i = broadcast_lanes(scale, Val(16)), broadcast_lanes(shift, Val(16)), 0
    GC.@preserve buffer x begin
        p, q = pointer(x) + 4 * from, pointer(buffer) + 4 * to
        while i + 15 < n
            store_lanes!(q, i, mul_add(load_lanes(p, i, Val(16)), scales, shifts))
            i += 16
        end
        while i < n
            unsafe_store!(q, muladd(unsafe_load(p, i + 1), scale, shift), i + 1)
            i += 1
        end
    end
    return nothing
end
