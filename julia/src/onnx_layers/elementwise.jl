# Functions of numbers, element by element.

"""
    Elementwise(f)

`f` of numbers applied element by element, to any number of arrays. Numpy's broadcasting aligns shapes at
the last dimension, which is Julia's first: where `broadcast` aligns them.
"""
struct Elementwise{F}
    f::F
end

(e::Elementwise)(xs...) = broadcast(e.f, xs...)

# Written out because compiling a broadcast is a good part of the time to the first answer.
function (e::Elementwise)(x::Array{Float32})
    y = similar(x)
    @inbounds @simd for i in eachindex(x)
        y[i] = e.f(x[i])
    end
    return y
end

function (e::Elementwise)(a::Array{Float32,N}, b::Array{Float32,N}) where {N}
    size(a) == size(b) || return broadcast(e.f, a, b)
    y = similar(a)
    @inbounds @simd for i in eachindex(a, b)
        y[i] = e.f(a[i], b[i])
    end
    return y
end

Base.show(io::IO, e::Elementwise) = print(io, "Elementwise(", e.f, ")")

"The numbers between `low` and `high`."
struct Clamp
    low::Float32
    high::Float32
end

(c::Clamp)(x) = min(max(x, c.low), c.high)
