# For arrays that are not in memory, as a GPU's: the same without loops, by what such arrays do as a whole.

"The elements are picked by a list of their places."
function strided(x::AbstractArray, sizes::Vector{Int}, steps::Vector{Int}, offset::Int=0)
    places = fill(offset + 1, Tuple(sizes))
    for d in eachindex(sizes)
        places .+= reshape(Int[i * steps[d] for i in 0:sizes[d]-1], ntuple(k -> k == d ? sizes[d] : 1, length(sizes)))
    end
    return vec(x)[places]
end

function (r::Reduction)(x::AbstractArray, axes=nothing)
    dims = reduced(ndims(x), axes, r.all_axes)
    count = prod(Int[size(x, d) for d in dims])
    y = isempty(dims) ? r.each.(x) : mapreduce(r.each, r.combine, x; dims=Tuple(dims), init=r.start(eltype(x)))
    return without(Elementwise(Base.Fix2(r.finish, count))(y), dims, r.keepdims)
end

function normalise_lines(x::AbstractArray, ϵ, n, scale, bias)
    lines = reshape(x, n, :)
    centred = lines .- sum(lines; dims=1) ./ n
    y = centred ./ sqrt.(sum(abs2, centred; dims=1) ./ n .+ ϵ)
    scale === nothing || (y = y .* vec(scale))
    bias === nothing || (y = y .+ vec(bias))
    return reshape(y, size(x))
end

# Layers that compute on arrays of any kind, if all their inputs are of that kind.
const Computing = Union{Elementwise,Transpose,Concat,Product,MatMul,Einsum,LayerNormalization,Pool}

# Those that do so with their first input, and read the others in memory.
const Reading = Union{Flatten,Reshape,Squeeze,Unsqueeze,Slice,Split,EvenSplit,Expand,Tile,Reduction,LogSumExp,ShapeOf}

"Whether all inputs of `f` have to be on the device for it to compute there, or the first (`:first`), or none can (`:none`)."
inputs_there(f) = :none
inputs_there(f::Computing) = :all
inputs_there(f::Reading) = :first
inputs_there(f::AlongAxis) = f.f === hardmax ? :none : :all
inputs_there(f::Coerced) = inputs_there(f.f)
inputs_there(f::Variadic) = f.mean ? :none : :all
inputs_there(f::typeof(size_of)) = :first
inputs_there(b::Bound) = inputs_there(b.f)
