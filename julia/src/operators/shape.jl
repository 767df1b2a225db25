# Operators that move elements about.

struct Flatten
    axis::Int
end

function (f::Flatten)(x)
    inner = f.axis < 0 ? -f.axis : ndims(x) - f.axis
    0 <= inner <= ndims(x) || throw(DimensionMismatch("there is no axis $(f.axis) in a tensor of $(ndims(x)) dimensions"))
    return reshape(x, prod(size(x)[1:inner]), prod(size(x)[inner+1:end]))
end

operator(op -> Flatten(int(op, "axis")), "Flatten")

"ONNX's Reshape: `shape` is outermost first, 0 keeps the input's dimension, -1 is what is left."
struct Reshape
    shape::Vector{Int}
end

function (r::Reshape)(x)
    wanted = map(enumerate(r.shape)) do (i, n)
        n == 0 ? size(x, dimension(x, i - 1)) : n
    end
    free = findfirst(==(-1), wanted)
    if free !== nothing
        rest = prod(wanted[1:free-1]) * prod(wanted[free+1:end])
        rest > 0 && length(x) % rest == 0 ||
            throw(DimensionMismatch("a tensor of shape $(words(outer_shape(x))) cannot become $(words(r.shape))"))
        wanted[free] = length(x) ÷ rest
    end
    return reshape(x, Tuple(reverse(wanted)))
end

operator("Reshape") do op
    only_value(op, "allowzero", 0)
    shape = constant(op, 2, Int64)
    all(>=(-1), shape) && count(==(-1), shape) <= 1 && length(shape) <= MAXIMUM_RANK ||
        refuse(op, "the shape $shape is impossible")
    Reshape(vec(shape))
end

struct Concat
    axis::Int
end

(c::Concat)(xs...) = cat(xs...; dims=dimension(first(xs), c.axis))

operator(op -> bind(op, Concat(int(op, "axis"))), "Concat"; computed=ANY_INPUTS)

"`permutation` in Julia's order of dimensions."
struct Transpose{N}
    permutation::NTuple{N,Int}
end

(t::Transpose)(x) = permutedims(x, t.permutation)

operator("Transpose") do op
    perm = ints(op, "perm")
    n = length(perm)
    sort(perm) == 0:n-1 || refuse(op, "perm = $perm is no permutation")
    Transpose(Tuple(n - perm[n-d+1] for d in 1:n))
end
