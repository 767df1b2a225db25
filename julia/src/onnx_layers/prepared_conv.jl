# Pointwise convolutions that compute their input while they read it, which saves passes through memory.

export PreparedConv, prepare_convolutions!

"""
    PreparedConv(layers)

The `layers` in turn: a [`Concat`](@ref) and a `BatchNorm`, or one of them, or a product of two arrays, and then a pointwise
`Conv`. It is as fast as the convolution alone for pictures whose channels are concatenated, and for products of a picture's channels
and a number for each, as in squeeze-and-excitation. For other arrays it calls the layers.
"""
struct PreparedConv
    layers::Vector{Any}
    scale::Vector{Float32}  # those of the BatchNorm
    shift::Vector{Float32}
end

function PreparedConv(layers)
    norm = layers[end-1]
    norm isa BatchNorm || return PreparedConv(layers, Float32[], Float32[])
    scale, shift = scale_and_shift(norm)
    return PreparedConv(layers, scale, shift)
end

function (p::PreparedConv)(@nospecialize(xs::Array...))
    input = prepared_input(p, xs)
    input === nothing || return p.layers[end](input)
    y = p.layers[1](xs...)
    for i in 2:length(p.layers)
        y = p.layers[i](y)
    end
    return y
end

"""
The `PreparedInput` of the arrays `xs`, or `nothing` if they are not pictures of one size to concatenate, or not a picture and a
number for each of its channels.
"""
function prepared_input(p, @nospecialize(xs))
    pictures, norm, scale, shift, λ = xs, p.layers[end-1], p.scale, p.shift, identity
    if norm isa BatchNorm
        λ = norm.λ
        length(xs) == 1 || p.layers[1] isa Concat && dimension(4, p.layers[1].axis) == 3 || return nothing
    else
        length(xs) == 2 || return nothing
        x, factors = is_scale(xs[2], xs[1]) ? (xs[1], xs[2]) : (xs[2], xs[1])
        is_scale(factors, x) || return nothing
        pictures, scale, shift = (x,), vec(factors), zeros(Float32, length(factors))
    end
    first, channels, parts = pictures[1], 0, Vector{Float32}[]
    for x in pictures
        x isa Array{Float32,4} && !isempty(x) && (size(x, 1), size(x, 2), size(x, 4)) == (size(first, 1), size(first, 2), size(first, 4)) ||
            return nothing
        channels += size(x, 3)
        push!(parts, vec(x))
    end
    channels == length(scale) || length(scale) == channels * size(first, 4) || return nothing
    return PreparedInput(parts, (size(first, 1), size(first, 2), channels, size(first, 4)), scale, shift, λ)
end

"Whether `s` has a number for each channel of the pictures `x`, or for each channel of each picture."
is_scale(@nospecialize(s), @nospecialize(x)) = s isa Array{Float32,4} && x isa Array{Float32,4} && size(s, 1) == size(s, 2) == 1 &&
    size(s, 3) == size(x, 3) && size(s, 4) in (1, size(x, 4))

allocates_output(::PreparedConv) = true

Base.show(io::IO, p::PreparedConv) = print(io, "PreparedConv(", p.layers, ")")

"""
    prepare_convolutions!(layers, nodes)

Make [`PreparedConv`](@ref)s of those `layers` of a step that can be. `nodes` has the node of each layer; that of the convolution
remains.
"""
function prepare_convolutions!(layers, nodes)
    i = 2
    while i <= length(layers)
        count = layers[i] isa Conv ? preparing_layers(layers, i) : 0
        if count > 0
            layers[i] = PreparedConv(layers[i-count:i])
            deleteat!(layers, i-count:i-1)
            deleteat!(nodes, i-count:i-1)
        end
        i += 1 - count
    end
    return nothing
end

"How many of the layers before the `i`th, a convolution, it can do as well."
function preparing_layers(layers, i)
    takes_prepared(layers[i]) || return 0
    layers[i-1] isa BatchNorm && return i == 3 && layers[1] isa Concat ? 2 : 1
    return i == 2 && layers[1] isa Elementwise{typeof(*)} ? 1 : 0
end
