# How Flux's layers become FluxdropWorker's. Both modules have to be in scope under their names.

using .FluxdropWorker: OnnxLayers, PlainLayers, fast_layer, flipped

"The functions that Flux applies to each number, and those of this package that compute the same."
const FAST_FUNCTIONS = IdDict{Any,Any}(
    Flux.relu => PlainLayers.relu, Flux.leakyrelu => PlainLayers.leakyrelu, Flux.elu => PlainLayers.elu,
    Flux.celu => PlainLayers.celu, Flux.sigmoid => PlainLayers.sigmoid, Flux.NNlib.sigmoid_fast => PlainLayers.sigmoid,
    tanh => PlainLayers.tanh_fast, Flux.NNlib.tanh_fast => PlainLayers.tanh_fast, Flux.softplus => PlainLayers.softplus,
    Flux.softsign => PlainLayers.softsign, Flux.mish => PlainLayers.mish, Flux.NNlib.gelu_tanh => PlainLayers.gelu,
    Flux.NNlib.gelu_erf => OnnxLayers.gelu_erf, Flux.hardsigmoid => PlainLayers.hardsigmoid,
    Flux.hardswish => PlainLayers.hardswish, Flux.relu6 => OnnxLayers.Clamp(0, 6), Flux.hardtanh => OnnxLayers.Clamp(-1, 1),
    Flux.swish => PlainLayers.swish)

"A function of one number as this package has it, or `f` itself."
fast_function(f) = get(FAST_FUNCTIONS, f, f)
fast_function(c::OnnxLayers.Composed) = OnnxLayers.Composed(fast_function(c.outer), fast_function(c.inner))
fast_function(s::OnnxLayers.Swish) = OnnxLayers.Swish(fast_function(s.sigmoid), s.α)
fast_function(f::Base.Fix2) = Base.Fix2(fast_function(f.f), f.x)

"The functions of whole arrays that the layers of graphs call, and those of this package that compute the same."
const FAST_ARRAY_FUNCTIONS = IdDict{Any,Any}(
    Flux.softmax => PlainLayers.softmax, Flux.logsoftmax => PlainLayers.logsoftmax,
    Flux.batched_mul => PlainLayers.batched_mul, Flux.NNlib.maxpool => PlainLayers.maxpool,
    Flux.NNlib.meanpool => PlainLayers.meanpool)

fast_array_function(f) = get(FAST_ARRAY_FUNCTIONS, f, f)

FluxdropWorker.fast_layer(e::OnnxLayers.Elementwise) = OnnxLayers.Elementwise(fast_function(e.f))
FluxdropWorker.fast_layer(a::OnnxLayers.AlongAxis) = OnnxLayers.AlongAxis(fast_array_function(a.f), a.axis)
FluxdropWorker.fast_layer(m::OnnxLayers.MatMul) =
    OnnxLayers.MatMul(fast_array_function(m.multiply), fast_function(m.σ))
FluxdropWorker.fast_layer(e::OnnxLayers.Einsum) = OnnxLayers.Einsum(fast_array_function(e.multiply), e.terms, e.result)
FluxdropWorker.fast_layer(p::OnnxLayers.Pool) = OnnxLayers.Pool(
    fast_array_function(p.pool), PlainLayers.PoolDims, p.kernel, p.stride, p.pad, p.dilation, p.ceil_mode)

# An activation among the layers of a chain: NNlib applies it to each number of an array.
for (f, g) in FAST_FUNCTIONS
    FluxdropWorker.fast_layer(::typeof(f)) = OnnxLayers.Elementwise(g)
end
FluxdropWorker.fast_layer(::typeof(Flux.softmax)) = PlainLayers.softmax
FluxdropWorker.fast_layer(::typeof(Flux.logsoftmax)) = PlainLayers.logsoftmax
FluxdropWorker.fast_layer(f::Base.BroadcastFunction) = OnnxLayers.Elementwise(fast_function(f.f))

"Whether `layer` has a weight of `dims` dimensions and a bias that this package's layers take."
has_plain_weights(layer, dims) = layer.weight isa Array{Float32} && ndims(layer.weight) in dims &&
    (layer.bias === false || layer.bias isa Vector{Float32})

has_plain_window(layer) = has_plain_weights(layer, 3:5) && all(>=(0), layer.pad)

FluxdropWorker.fast_layer(c::Flux.Conv) = !has_plain_window(c) ? c :
    PlainLayers.Conv(c.weight, c.bias, fast_function(c.σ);
                     stride=c.stride, pad=c.pad, dilation=c.dilation, groups=c.groups)

FluxdropWorker.fast_layer(c::Flux.CrossCor) = !has_plain_window(c) ? c :
    PlainLayers.Conv(flipped(c.weight, ndims(c.weight) - 2), c.bias, fast_function(c.σ);
                     stride=c.stride, pad=c.pad, dilation=c.dilation)

FluxdropWorker.fast_layer(c::Flux.ConvTranspose) = !has_plain_window(c) ? c :
    PlainLayers.ConvTranspose(c.weight, c.bias, fast_function(c.σ); stride=c.stride, pad=c.pad, outpad=c.outpad,
                              dilation=c.dilation, groups=c.groups)

FluxdropWorker.fast_layer(d::Flux.Dense) = !has_plain_weights(d, 2) ? d :
    PlainLayers.Dense(d.weight, d.bias, fast_function(d.σ))

FluxdropWorker.fast_layer(p::Flux.MaxPool) =
    length(p.k) in 1:3 && all(>=(0), p.pad) ? PlainLayers.MaxPool(p.k; pad=p.pad, stride=p.stride) : p
FluxdropWorker.fast_layer(p::Flux.MeanPool) =
    length(p.k) in 1:3 && all(>=(0), p.pad) ? PlainLayers.MeanPool(p.k; pad=p.pad, stride=p.stride) : p
FluxdropWorker.fast_layer(p::Flux.AdaptiveMaxPool) = length(p.out) in 1:3 ? PlainLayers.AdaptiveMaxPool(p.out) : p
FluxdropWorker.fast_layer(p::Flux.AdaptiveMeanPool) = length(p.out) in 1:3 ? PlainLayers.AdaptiveMeanPool(p.out) : p
FluxdropWorker.fast_layer(::Flux.GlobalMaxPool) = PlainLayers.GlobalMaxPool()
FluxdropWorker.fast_layer(::Flux.GlobalMeanPool) = PlainLayers.GlobalMeanPool()

FluxdropWorker.fast_layer(d::Union{Flux.Dropout,Flux.AlphaDropout}) = d.active === true ? d : identity

# A scale for each channel of a picture, (1, 1, channels), is a batch norm with mean 0 and variance 1.
function FluxdropWorker.fast_layer(s::Flux.Scale)
    scale, bias = s.scale, s.bias === false ? zero(s.scale) : s.bias
    scale isa Array{Float32} && bias isa Array{Float32} || return s
    ndims(scale) > 1 && all(==(1), size(scale)[1:end-1]) || return OnnxLayers.Affine(scale, bias, fast_function(s.σ))
    return PlainLayers.BatchNorm(fast_function(s.σ), vec(bias), vec(scale), zero(vec(scale)), one.(vec(scale)), 0.0f0)
end

"The γ and β of a normalisation; ones and zeros where it has none."
scale_and_bias(norm) = norm.affine ? (norm.γ, norm.β) : (ones(Float32, norm.chs), zeros(Float32, norm.chs))

are_plain(vectors...) = all(v -> v isa Vector{Float32}, vectors)

function FluxdropWorker.fast_layer(norm::Flux.BatchNorm)
    γ, β = scale_and_bias(norm)
    norm.active !== true && norm.track_stats && are_plain(γ, β, norm.μ, norm.σ²) || return norm
    return PlainLayers.BatchNorm(fast_function(norm.λ), β, γ, norm.μ, norm.σ², Float32(norm.ϵ))
end

function FluxdropWorker.fast_layer(norm::Union{Flux.GroupNorm,Flux.InstanceNorm})
    γ, β = scale_and_bias(norm)
    norm.active !== true && !norm.track_stats && are_plain(γ, β) || return norm
    groups = norm isa Flux.GroupNorm ? norm.G : norm.chs
    return PlainLayers.GroupNorm(groups, fast_function(norm.λ), β, γ, Float32(norm.ϵ))
end

"""
What Flux's LayerNorm adds to the variance for its `eps`, as a function: `identity`, or `abs2` before version 0.16.11
(FluxML/Flux.jl#2701). `nothing` if it is neither. It is measured, as Flux and NNlib have versions of their own.
"""
const LAYER_NORM_EPSILON = let y = Flux.normalise(Float32[-1, 1]; dims=1, eps=2.0f0)[2]
    y ≈ inv(sqrt(3.0f0)) ? identity : y ≈ inv(sqrt(5.0f0)) ? abs2 : nothing
end

function FluxdropWorker.fast_layer(norm::Flux.LayerNorm)
    LAYER_NORM_EPSILON === nothing && return norm
    ϵ = Float32(LAYER_NORM_EPSILON(norm.ϵ))
    norm.affine || return PlainLayers.LayerNorm(norm.size, nothing, nothing, fast_function(norm.λ), ϵ)
    scale, bias = norm.diag.scale, norm.diag.bias
    scale isa Array{Float32} && (bias === false || bias isa Array{Float32}) || return norm
    return PlainLayers.LayerNorm(norm.size, vec(scale), bias === false ? nothing : vec(bias), fast_function(norm.λ), ϵ)
end

function FluxdropWorker.fast_layer(chain::Flux.Chain)
    layers = Any[]
    append_fast!(layers, chain)
    return length(layers) == 1 ? layers[1] : PlainLayers.Chain(layers)
end

"Append the fast layers of a chain to `layers`. Fold what can be folded into the layer before it."
function append_fast!(layers, chain::Flux.Chain)
    for layer in values(chain.layers)
        if layer isa Flux.Chain
            append_fast!(layers, layer)
            continue
        end
        made = fast_layer(layer)
        folded = isempty(layers) ? nothing : fold(layers[end], made)
        if folded !== nothing
            layers[end] = folded
        elseif made !== identity
            push!(layers, made)
        end
    end
    isempty(layers) && push!(layers, identity)
    return nothing
end

"The layers that a batch norm or an activation can be folded into, if they have no activation yet."
const Foldable = Union{PlainLayers.Conv,PlainLayers.ConvTranspose,PlainLayers.Dense}

"""
    fold(before, layer)

One layer that does what `before` and then `layer` do, both of this package, or `nothing`.
"""
fold(before, layer) = nothing

fold(before::Foldable, layer::OnnxLayers.Elementwise) =
    before.σ === identity ? rebuilt(before, before.weight, before.bias, layer.f) : nothing

function fold(before::Foldable, norm::PlainLayers.BatchNorm)
    before.σ === identity && length(norm.γ) == output_channels(before) || return nothing
    scale = norm.γ ./ sqrt.(norm.σ² .+ norm.ϵ)
    shift = norm.β .- norm.μ .* scale
    bias = before.bias === false ? shift : before.bias .* scale .+ shift
    return rebuilt(before, scaled_weight(before, scale), bias, norm.λ)
end

function fold(before::PlainLayers.Dense, layer::OnnxLayers.Affine)
    before.σ === identity && size(layer.scale) == (output_channels(before),) || return nothing
    bias = before.bias === false ? layer.shift : before.bias .* layer.scale .+ layer.shift
    return rebuilt(before, scaled_weight(before, layer.scale), bias, layer.σ)
end

output_channels(c::PlainLayers.Conv) = size(c.weight, 5)
output_channels(c::PlainLayers.ConvTranspose) = size(c.weight, 4) * c.groups
output_channels(d::PlainLayers.Dense) = size(d.weight, 1)

scaled_weight(c::PlainLayers.Conv, scale) = c.weight .* reshape(scale, 1, 1, 1, 1, :)
scaled_weight(d::PlainLayers.Dense, scale) = d.weight .* scale

"The weight is (kw, kh, kd, out ÷ groups, in): the input channels of a group have the output channels of that group."
function scaled_weight(c::PlainLayers.ConvTranspose, scale)
    by_group = reshape(scale, 1, 1, 1, :, 1, c.groups)
    weight = reshape(c.weight, size(c.weight)[1:4]..., :, c.groups) .* by_group
    return reshape(weight, size(c.weight))
end

rebuilt(c::PlainLayers.Conv, weight, bias, σ) = PlainLayers.Conv(σ, weight, bias, c.window, c.groups)
rebuilt(c::PlainLayers.ConvTranspose, weight, bias, σ) = PlainLayers.ConvTranspose(σ, weight, bias, c.window, c.outpad, c.groups)
rebuilt(d::PlainLayers.Dense, weight, bias, σ) = PlainLayers.Dense(weight, bias, σ)

FluxdropWorker.fast_layer(s::Flux.SkipConnection) =
    PlainLayers.SkipConnection(fast_layer(s.layers), fast_connection(s.connection))

FluxdropWorker.fast_layer(p::Flux.Parallel) =
    PlainLayers.Parallel(fast_connection(p.connection), Any[fast_layer(layer) for layer in values(p.layers)])

# A function that connects branches is called with their arrays, as `+`, and not with their numbers.
fast_connection(f) = f isa Base.BroadcastFunction ? fast_layer(f) : f
