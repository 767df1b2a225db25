# Chain (Flux's src/layers/basic.jl).

"""
    Chain(layers::Vector)

Call the layers one after the other. `chain[i]` is the `i`th layer.
"""
struct Chain
    layers::Vector{Any}
end

function (c::Chain)(x)
    for layer in c.layers
        x = layer(x)
    end
    return x
end

Base.getindex(c::Chain, i) = c.layers[i]
Base.length(c::Chain) = length(c.layers)

function Base.show(io::IO, c::Chain)
    print(io, "Chain([")
    join(io, c.layers, ", ")
    print(io, "])")
end
