# Layers that are made of other layers (Flux's src/layers/basic.jl).

"""
    Chain(layers::Vector)

Call the layers one after the other. `chain[i]` is the `i`th layer. A chain of several arguments passes them on as one
tuple, as Flux's does.

An array between two layers that both take their outputs from the buffer pool goes back to it as soon as it was read.
"""
struct Chain
    layers::Vector{Any}
end

function (c::Chain)(x)
    for i in 1:length(c.layers)
        y = c.layers[i](x)
        i > 1 && allocates_output(c.layers[i-1]) && allocates_output(c.layers[i]) && release!(x)
        x = y
    end
    return x
end

(c::Chain)(x, others...) = c((x, others...))

allocates_output(c::Chain) = !isempty(c.layers) && allocates_output(c.layers[end])

Base.getindex(c::Chain, i) = c.layers[i]
Base.length(c::Chain) = length(c.layers)

function Base.show(io::IO, c::Chain)
    print(io, "Chain([")
    join(io, c.layers, ", ")
    print(io, "])")
end

"""
    SkipConnection(layers, connection)

`connection(layers(x), x)`. With `+` as the connection, `x` is added in place where the layers' output is from the buffer
pool.
"""
struct SkipConnection
    layers::Any
    connection::Any
end

function (s::SkipConnection)(x)
    y = s.layers(x)
    return connect(s.connection, allocates_output(s.layers), y, x)
end

allocates_output(s::SkipConnection) = allocates_connection(s.connection, allocates_output(s.layers))

Base.show(io::IO, s::SkipConnection) = print(io, "SkipConnection(", s.layers, ", ", s.connection, ")")

"""
    Parallel(connection, layers::Vector)

`connection` of the outputs of all `layers`. One argument goes to each of them; of a tuple, or of several arguments, each
layer gets one.
"""
struct Parallel
    connection::Any
    layers::Vector{Any}
end

(p::Parallel)(x) = join_branches(p, Any[layer(x) for layer in p.layers])
(p::Parallel)(xs::Tuple) = p(xs...)

function (p::Parallel)(x, others...)
    xs = (x, others...)
    length(xs) == length(p.layers) ||
        throw(DimensionMismatch("Parallel with $(length(p.layers)) layers got $(length(xs)) inputs"))
    return join_branches(p, Any[layer(input) for (layer, input) in zip(p.layers, xs)])
end

function join_branches(p, ys)
    y, is_ours = ys[1], allocates_output(p.layers[1])
    length(ys) == 2 && return connect(p.connection, is_ours, y, ys[2], allocates_output(p.layers[2]))
    return p.connection(ys...)
end

allocates_output(p::Parallel) = length(p.layers) == 2 && allocates_connection(p.connection, allocates_output(p.layers[1]))

Base.show(io::IO, p::Parallel) = print(io, "Parallel(", p.connection, ", ", p.layers, ")")

"""
    connect(connection, y_is_ours, y, x, x_is_ours = false)

`connection(y, x)`. What is ours came from the buffer pool and nothing else reads it: it is used for the result, or goes
back.
"""
function connect(connection, y_is_ours, y, x, x_is_ours=false)
    if connection === (+) && y_is_ours && y isa Array{Float32} && x isa Array{Float32}
        z = add!(y, x)
    else
        z = connection(y, x)
        y_is_ours && allocates_output(connection) && release!(y)
    end
    x_is_ours && allocates_connection(connection, y_is_ours) && release!(x)
    return z
end

"Whether [`connect`](@ref) returns an array of the buffer pool that shares memory with neither input."
allocates_connection(connection, y_is_ours) = allocates_output(connection) || connection === (+) && y_is_ours

"`y .+= x`. Throws `DimensionMismatch` if the sizes differ."
function add!(y::Array{Float32}, x::Array{Float32})
    size(y) == size(x) || throw(DimensionMismatch("an array of $(size(x)) cannot be added to one of $(size(y))"))
    parallel_for(length(y), ELEMENT_COST * length(y)) do _, items
        @inbounds @simd ivdep for i in items
            y[i] += x[i]
        end
    end
    return y
end
