# Functions of numbers, element by element.

export Elementwise, Variadic, clip

"""
    Elementwise(f)

`f` of numbers applied element by element, to any number of arrays. Numpy's broadcasting aligns shapes at
the last dimension, which is Julia's first: where `broadcast` aligns them.
"""
struct Elementwise{F}
    f::F
end

# What follows for arrays in memory is what `broadcast` does, and is compiled in less time.
(e::Elementwise)(xs...) = broadcast(e.f, xs...)

function (e::Elementwise)(x::Array{T}) where {T}
    f = e.f
    y = similar(x, typeof(f(one(T))))
    @inbounds @simd for i in eachindex(x)
        y[i] = f(x[i])
    end
    return y
end

function (e::Elementwise)(a::Array{A}, b::Array{B}) where {A,B}
    sizes = common_size(size(a), size(b))
    y = Array{typeof(e.f(one(A), one(B)))}(undef, Tuple(sizes))
    combine!(y, e.f, a, b, Walk(sizes, steps_of(a, sizes), steps_of(b, sizes)))
    return y
end

function combine!(y, f::F, a, b, w) where {F}
    n, a_step, b_step = w.sizes[1], w.a[1], w.b[1]
    each_run(w) do run, i, j
        k = run * n
        if a_step == b_step
            @inbounds @simd for l in 1:n
                y[k+l] = f(a[i+l], b[j+l])
            end
        elseif b_step == 0
            number = b[j+1]
            @inbounds @simd for l in 1:n
                y[k+l] = f(a[i+l], number)
            end
        else
            number = a[i+1]
            @inbounds @simd for l in 1:n
                y[k+l] = f(number, b[j+l])
            end
        end
    end
    return nothing
end

function (e::Elementwise)(a::Array{A}, b::Array{B}, c::Array{C}) where {A,B,C}
    f = e.f
    sizes = common_size(common_size(size(a), size(b)), size(c))
    a, b, c = broadcast_to(a, sizes), broadcast_to(b, sizes), broadcast_to(c, sizes)
    y = Array{typeof(f(one(A), one(B), one(C)))}(undef, Tuple(sizes))
    @inbounds @simd for i in eachindex(y)
        y[i] = f(a[i], b[i], c[i])
    end
    return y
end

Base.show(io::IO, e::Elementwise) = print(io, "Elementwise(", e.f, ")")

"`f` of any number of arrays, taken two at a time, and divided by their number where `mean`."
struct Variadic{F}
    f::F
    mean::Bool
end

function (v::Variadic)(xs...)
    y = foldl(Elementwise(v.f), xs)
    return v.mean ? Elementwise(/)(y, fill(Float32(length(xs)))) : y
end

"ONNX's Clip with bounds that are arrays of one number, or `nothing`."
function clip(x, low=nothing, high=nothing)
    low === nothing || (x = Elementwise(max)(x, low))
    return high === nothing ? x : Elementwise(min)(x, high)
end
