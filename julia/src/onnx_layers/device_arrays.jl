# Methods for arrays on a device such as a GPU. Such arrays do not allow access to single elements, so these methods use
# operations on whole arrays in place of loops.

"The method for device arrays: it indexes `x` with an array of linear indices."
function copy_strided(x::AbstractArray, sizes::Vector{Int}, steps::Vector{Int}, offset::Int=0)
    places = fill(offset + 1, Tuple(sizes))
    for d in eachindex(sizes)
        places .+= reshape(Int[i * steps[d] for i in 0:sizes[d]-1], ntuple(k -> k == d ? sizes[d] : 1, length(sizes)))
    end
    return vec(x)[places]
end

function (r::Reduction)(x::AbstractArray, axes=nothing)
    dims = reduced_dims(ndims(x), axes, r.all_axes)
    count = prod(Int[size(x, d) for d in dims])
    y = isempty(dims) ? r.each.(x) : mapreduce(r.each, r.combine, x; dims=Tuple(dims), init=r.start(eltype(x)))
    return drop_dims(Elementwise(Base.Fix2(r.finish, count))(y), dims, r.keepdims)
end

function normalise_columns(x::AbstractArray, ϵ, n, scale, bias)
    lines = reshape(x, n, :)
    centred = lines .- sum(lines; dims=1) ./ n
    y = centred ./ sqrt.(sum(abs2, centred; dims=1) ./ n .+ ϵ)
    scale === nothing || (y = y .* vec(scale))
    bias === nothing || (y = y .+ vec(bias))
    return reshape(y, size(x))
end

# Layers that compute on the device if all their inputs are there.
const AllOnDevice = Union{Elementwise,Transpose,Concat,Gemm,MatMul,Einsum,LayerNormalization,Pool}

# Layers that compute on the device if their first input is there. The others are shapes or indices, on the CPU.
const FirstOnDevice = Union{Flatten,Reshape,Squeeze,Unsqueeze,Slice,Split,EvenSplit,Expand,Tile,Reduction,LogSumExp,ShapeOf}

"""
    inputs_on_device(f)

Which inputs of the layer `f` have to be on the device for it to compute there: `:all`, `:first`, or `:none` if it can
compute only on the CPU.
"""
inputs_on_device(f) = :none
inputs_on_device(f::AllOnDevice) = :all
inputs_on_device(f::FirstOnDevice) = :first
inputs_on_device(f::AlongAxis) = f.f === hardmax ? :none : :all
inputs_on_device(f::Coerced2D) = inputs_on_device(f.f)
inputs_on_device(f::Variadic) = f.mean ? :none : :all
inputs_on_device(f::typeof(element_count)) = :first
inputs_on_device(b::Bound) = inputs_on_device(b.f)
