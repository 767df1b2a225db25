# Operators that are layers of Flux.

"The code of the activation that a layer takes as an argument, or `\"\"`."
argument(site) = site.activation === nothing ? "" : as_function(site.activation)

"The layer's weights. `bias` may be `nothing`: the option is then `bias=false`."
weights_of(weight, bias) = bias === nothing ? Pair{Symbol,Any}[:weight => weight] : Pair{Symbol,Any}[:weight => weight, :bias => bias]

"`x`, or `nothing` if it is the default of its option."
unless(default, x) = x == default ? nothing : x
"The code of a padding, or `nothing` if there is none."
window_text(window) = all(iszero, window) ? nothing : compact(symmetric(window))

"NNlib's padding (before, after, ...) with one number for each dimension if both sides are equal."
symmetric(pad) = all(i -> pad[i] == pad[i+1], 1:2:length(pad)) ? pad[1:2:end] : pad

"A convolution layer. `channels(weight, groups)` is the code of its number of channels, `in => out`."
function convolution!(site, name, channels; options...)
    op = site.op
    all(i -> !given(site, i) || site.arguments[i] isa Array, 2:3) || cannot(site, "its weights are computed")
    weight, bias = constant(op, 2), optional_constant(op, 3)
    n = ndims(weight) - 2
    code = call(name, literal(size(weight)[1:n]), channels(weight, int(op, "group")), argument(site);
                stride=unless("1", compact(spatial(op, "strides"))), dilation=unless("1", compact(spatial(op, "dilations"))),
                groups=unless("1", literal(int(op, "group"))), bias=bias === nothing ? "false" : nothing, options...)
    layer!(site, Layer("conv", code, weights_of(FluxdropWorker.flipped(weight, n), bias)); activation=true)
end

writes("Conv") do site
    channels(w, groups) = "$(size(w, ndims(w) - 1) * groups) => $(size(w, ndims(w)))"
    convolution!(site, "Conv", channels; pad=window_text(pads(site.op)))
end

writes("ConvTranspose") do site
    channels(w, groups) = "$(size(w, ndims(w))) => $(size(w, ndims(w) - 1) * groups)"
    # Output padding first replaces cropping at the end; only what is left of it extends the output.
    extra, given_pads = reverse(ints(site.op, "output_padding")), pads(site.op)
    pad = Tuple(isodd(i) ? p : max(0, p - extra[i÷2]) for (i, p) in enumerate(given_pads))
    outpad = Tuple(max(0, extra[i] - given_pads[2i]) for i in 1:length(extra))
    all(outpad .< spatial(site.op, "strides")) || cannot(site, "its output padding is not less than its stride")
    convolution!(site, "ConvTranspose", channels; pad=window_text(pad), outpad=unless("0", compact(outpad)))
end

"A Dense with a weight of (out, in)."
function dense!(site, weight, bias)
    code = call("Dense", "$(size(weight, 2)) => $(size(weight, 1))", argument(site); bias=bias === nothing ? "false" : nothing)
    layer!(site, Layer("dense", code, weights_of(weight, bias)); activation=true)
end

writes("Gemm") do site
    op = site.op
    α, β = float(op, "alpha"), float(op, "beta")
    site.arguments[1] isa Value && int(op, "transA") == 0 && all(i -> !given(site, i) || site.arguments[i] isa Array, 2:3) ||
        return gemm!(site, α, β)
    weight = α .* FluxdropWorker.matrix_of(op, int(op, "transB") != 0)
    given(site, 3) || return dense!(site, weight, nothing)
    bias, out = β .* constant(op, 3), size(weight, 1)
    length(bias) in (1, out) && size(bias, 1) == length(bias) || return gemm!(site, α, β)
    dense!(site, weight, length(bias) == out ? vec(bias) : fill(first(bias), out))
end

"A Gemm of two computed matrices."
function gemm!(site, α, β)
    a, b = operand!(site, 1), operand!(site, 2)
    int(site.op, "transA") == 0 || (a = "transpose($a)")
    int(site.op, "transB") == 0 || (b = "transpose($b)")
    code = α == 1 ? "$b * $a" : "$(literal(α)) .* ($b * $a)"
    given(site, 3) && (code = "$code .+ $(β == 1 ? "" : literal(β) * " .* ")$(operand!(site, 3))")
    expression!(site, code)
end

# A third input is the bias of an Add that follows (code.jl).
writes("MatMul") do site
    a, b = site.arguments[1:2]
    a isa Value && b isa Matrix{Float32} && return dense!(site, b, given(site, 3) ? site.arguments[3] : nothing)
    product!(site, argument_size(a), argument_size(b))
end

"The size of an argument in the first batch of the trace."
argument_size(x::Value) = x.sizes[1]
argument_size(x::AbstractArray) = collect(Int, size(x))
argument_size(x::Repeated) = [d == x.d ? n * BATCHES[1] : n for (d, n) in enumerate(size(x.array))]
argument_size(x) = Int[]

"NumPy's product of stacks of matrices: in Julia's order, the factors change places."
function product!(site, a, b)
    x, y = operand!(site, 1), operand!(site, 2)
    if length(a) == length(b) == 2
        expression!(site, "$y * $x")
    elseif length(a) == length(b) && a[3:end] == b[3:end]
        expression!(site, "batched_mul($y, $x)")
    else
        cannot(site, "its factors of shapes $(reverse(a)) and $(reverse(b)) are not stacks of one size")
    end
end

writes("BatchNormalization") do site
    op = site.op
    γ, β, μ, σ² = (constant(op, i) for i in 2:5)
    int(op, "training_mode", 0) == 0 && ndims(γ) == 1 || cannot(site, "it is in training mode, or has numbers for each pixel")
    code = call("BatchNorm", string(length(γ)), argument(site); eps=literal(float(op, "epsilon")))
    layer!(site, Layer("norm", code, [:γ => γ, :β => β, :μ => μ, :σ² => σ²]); activation=true)
end

writes("InstanceNormalization") do site
    γ, β = FluxdropWorker.scale_and_bias(site.op)
    code = call("InstanceNorm", string(length(γ)), argument(site); affine="true", eps=literal(float(site.op, "epsilon")))
    layer!(site, Layer("norm", code, [:γ => γ, :β => β]); activation=true)
end

writes("GroupNormalization") do site
    op = site.op
    γ, β = FluxdropWorker.scale_and_bias(op)
    groups, channels = int(op, "num_groups"), value(site).sizes[1][end-1]
    γ, β = (length(v) == channels ? v : repeat(v; inner=channels ÷ groups) for v in (γ, β))
    code = call("GroupNorm", string(channels), string(groups), argument(site); eps=literal(float(op, "epsilon")))
    layer!(site, Layer("norm", code, [:γ => γ, :β => β]); activation=true)
end

"The layer that flux_model.jl has of its own where a model has ONNX's LayerNormalization."
const LAYER_NORMALISATION = """
    # Flux's LayerNorm adds the square of eps to the variance before version 0.16.11, and eps itself since then.
    struct LayerNormalisation{A,B}
        scale::A
        bias::B
        eps::Float32
    end
    Flux.@layer LayerNormalisation
    LayerNormalisation(size...; eps, bias=true) = LayerNormalisation(ones32(size...), bias ? zeros32(size...) : false, eps)

    function (l::LayerNormalisation)(x)
        dims = Tuple(1:ndims(l.scale))
        centred = x .- sum(x; dims) ./ length(l.scale)
        variance = sum(abs2, centred; dims) ./ length(l.scale)
        return centred ./ sqrt.(variance .+ l.eps) .* l.scale .+ l.bias
    end
    """

writes("LayerNormalization") do site
    op = site.op
    x, scale = value(site), constant(op, 2)
    bias = optional_constant(op, 3)
    inner = x.sizes[1][1:dimension(length(x.sizes[1]), int(op, "axis"))]
    size_matches(p) = length(p) == prod(inner) && all(d -> size(p, d) == inner[d], 1:length(inner))
    size_matches(scale) && (bias === nothing || size_matches(bias)) || cannot(site, "its scale is not of the size that is normalised")
    weights = Pair{Symbol,Any}[:scale => reshape(scale, inner...)]
    bias === nothing || push!(weights, :bias => reshape(bias, inner...))
    code = call("LayerNormalisation", map(string, inner)...; eps=literal(float(op, "epsilon")), bias=bias === nothing ? "false" : nothing)
    layer!(site, Layer("norm", code, weights))
end

"A pooling layer whose last windows extend beyond the padded input by `overhang`."
function pool!(site, name, overhang)
    op = site.op
    all(isone, spatial(op, "dilations")) || cannot(site, "Flux's poolings have no dilation")
    pad = Tuple(isodd(i) ? p : p + overhang[i÷2] for (i, p) in enumerate(pads(op)))
    kernel, stride = spatial(op, "kernel_shape"), spatial(op, "strides")
    code = call(name, literal(kernel); pad=window_text(pad), stride=stride == kernel ? nothing : compact(stride))
    layer!(site, Layer("pool", code, []))
end

"How far the last window extends beyond the padded input in each dimension, from the size of the output."
function overhang(site)
    op, x = site.op, value(site).sizes[1]
    kernel, stride, pad = spatial(op, "kernel_shape"), spatial(op, "strides"), pads(op)
    return [max(0, (site.sizes[1][i] - 1) * stride[i] + kernel[i] - x[i] - pad[2i-1] - pad[2i]) for i in 1:length(kernel)]
end

writes(site -> pool!(site, "MaxPool", overhang(site)), "MaxPool")

writes("AveragePool") do site
    pool = FluxdropWorker.general_pool(site.op, PlainLayers.meanpool)
    average = OnnxLayers.AveragePool(pool, int(site.op, "count_include_pad") == 1)
    x, y, n = value(site).sizes[1], site.sizes[1], length(pool.kernel)
    counts = [OnnxLayers.window_counts(average, x[i], i, y[i]) for i in 1:n]
    all(i -> all(==(pool.kernel[i]), counts[i]), 1:n) || cannot(site, "its windows at the edge count fewer pixels than Flux's")
    pool!(site, "MeanPool", overhang(site))
end

writes(site -> layer!(site, Layer("pool", "GlobalMeanPool()", [])), "GlobalAveragePool")
writes(site -> layer!(site, Layer("pool", "GlobalMaxPool()", [])), "GlobalMaxPool")
