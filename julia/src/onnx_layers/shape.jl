# Moving elements about.

"Any tensor as a matrix, cut before `axis`: (inner..., outer...) to (inner, outer)."
struct Flatten
    axis::Int
end

function (f::Flatten)(x)
    inner = f.axis < 0 ? -f.axis : ndims(x) - f.axis
    0 <= inner <= ndims(x) || throw(DimensionMismatch("there is no axis $(f.axis) in a tensor of $(ndims(x)) dimensions"))
    return reshape(x, prod(size(x)[1:inner]), prod(size(x)[inner+1:end]))
end

"ONNX's Reshape: `shape` is outermost first, 0 keeps the input's dimension, -1 is what is left."
struct Reshape
    shape::Vector{Int}
end

function (r::Reshape)(x)
    wanted = Int[n == 0 ? size(x, dimension(x, i - 1)) : n for (i, n) in enumerate(r.shape)]
    free = findfirst(==(-1), wanted)
    if free !== nothing
        rest = -prod(wanted)
        rest > 0 && length(x) % rest == 0 ||
            throw(DimensionMismatch("a tensor of shape $(reverse(size(x))) cannot become $(Tuple(r.shape))"))
        wanted[free] = length(x) ÷ rest
    end
    return reshape(x, Tuple(reverse(wanted)))
end

struct Concat
    axis::Int
end

(c::Concat)(xs...) = cat(xs...; dims=dimension(first(xs), c.axis))

"`permutation` is in Julia's order of dimensions."
struct Transpose{N}
    permutation::NTuple{N,Int}
end

(t::Transpose)(x) = permutedims(x, t.permutation)
