# Functions applied element by element.

export Elementwise, Variadic, clip

"""
    Elementwise(f)

Apply `f` to each element of one or more arrays. Shapes are broadcast as in NumPy: they are aligned at ONNX's last
dimension, which is Julia's first, where Julia's `broadcast` aligns them too.
"""
struct Elementwise{F}
    f::F
end

# The methods for Array below return what broadcast returns. They take less time to compile (see strided.jl).
(e::Elementwise)(xs...) = broadcast(e.f, xs...)

function (e::Elementwise)(@nospecialize(x::Array))
    y = uninitialised(typeof(e.f(one(eltype(x)))), size(x))
    map_into!(vec(y), e.f, vec(x))
    return y
end

"""
    map_into!(y, f, arrays...)

Store `f` of each element of the `arrays`, which are vectors, in `y`. With a [`StridedLoop`](@ref) as the last argument,
the two arrays are broadcast.
"""
function map_into!(y, f::F, x) where {F}
    parallel_for(length(y), ELEMENT_COST * length(y)) do _, items
        @inbounds @simd for i in items
            y[i] = f(x[i])
        end
    end
    return nothing
end

function (e::Elementwise)(@nospecialize(a::Array), @nospecialize(b::Array))
    a_sizes, b_sizes = shape_of(a), shape_of(b)
    sizes = broadcast_sizes(a_sizes, b_sizes)
    y = uninitialised(typeof(e.f(one(eltype(a)), one(eltype(b)))), Tuple(sizes))
    a_sizes == b_sizes ? map_into!(vec(y), e.f, vec(a), vec(b)) :
        map_into!(vec(y), e.f, vec(a), vec(b),
                  StridedLoop(sizes, broadcast_strides(a_sizes, sizes), broadcast_strides(b_sizes, sizes)))
    return y
end

function map_into!(y, f::F, a, b) where {F}
    parallel_for(length(y), ELEMENT_COST * length(y)) do _, items
        @inbounds @simd for i in items
            y[i] = f(a[i], b[i])
        end
    end
    return nothing
end

function map_into!(y, f::F, a, b, w::StridedLoop) where {F}
    n, a_step, b_step = w.sizes[1], w.a_strides[1], w.b_strides[1]
    parallel_for(run_count(w), ELEMENT_COST * length(y)) do _, items
        foreach_run(w, 1, items .- 1) do run, i, j
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
    end
    return nothing
end

function (e::Elementwise)(@nospecialize(a::Array), @nospecialize(b::Array), @nospecialize(c::Array))
    sizes = broadcast_sizes(broadcast_sizes(shape_of(a), shape_of(b)), shape_of(c))
    y = uninitialised(typeof(e.f(one(eltype(a)), one(eltype(b)), one(eltype(c)))), Tuple(sizes))
    # One number in the middle is what Where has that replaces some numbers, as those that are NaN.
    length(b) == 1 ? map_around!(vec(y), e.f, vec(broadcast_to(a, sizes)), b[1], vec(broadcast_to(c, sizes))) :
        map_into!(vec(y), e.f, vec(broadcast_to(a, sizes)), vec(broadcast_to(b, sizes)), vec(broadcast_to(c, sizes)))
    return y
end

function map_around!(y, f::F, a, number, c) where {F}
    parallel_for(length(y), ELEMENT_COST * length(y)) do _, items
        @inbounds @simd for i in items
            y[i] = f(a[i], number, c[i])
        end
    end
    return nothing
end

function map_into!(y, f::F, a, b, c) where {F}
    parallel_for(length(y), ELEMENT_COST * length(y)) do _, items
        @inbounds @simd for i in items
            y[i] = f(a[i], b[i], c[i])
        end
    end
    return nothing
end

uninitialised(::Type{Float32}, sizes) = acquire(sizes)
uninitialised(T, sizes) = Array{T}(undef, sizes)

allocates_output(::Elementwise) = true

Base.show(io::IO, e::Elementwise) = print(io, "Elementwise(", e.f, ")")

"""
ONNX's Min, Max, Sum and Mean: `f` of any number of arrays, two at a time. With `mean`, the result is divided by their
number.
"""
struct Variadic{F}
    f::F
    mean::Bool
end

function (v::Variadic)(xs...)
    y = foldl(Elementwise(v.f), xs)
    return v.mean ? Elementwise(/)(y, fill(Float32(length(xs)))) : y
end

"ONNX's Clip. The bounds are arrays of one number, or `nothing`."
function clip(x, low=nothing, high=nothing)
    low === nothing || (x = Elementwise(max)(x, low))
    return high === nothing ? x : Elementwise(min)(x, high)
end
