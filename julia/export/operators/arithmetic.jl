# Activations, arithmetic and reductions.

"The functions of one number, by operator: `make(op)` returns a [`Scalar`](@ref)."
const SCALARS = Dict{String,Function}()

scalar(make, name) = (SCALARS[name] = make)
named(function_name, name) = scalar(op -> Scalar(function_name), name)

for (function_name, name) in (
        "relu" => "Relu", "sigmoid" => "Sigmoid", "tanh" => "Tanh", "softplus" => "Softplus", "softsign" => "Softsign",
        "mish" => "Mish", "hardswish" => "HardSwish", "abs" => "Abs", "-" => "Neg", "inv" => "Reciprocal", "exp" => "Exp",
        "sqrt" => "Sqrt", "log" => "Log", "floor" => "Floor", "ceil" => "Ceil", "round" => "Round", "sign" => "Sign",
        "isnan" => "IsNaN", "!" => "Not", "sin" => "Sin", "cos" => "Cos", "tan" => "Tan", "asin" => "Asin", "acos" => "Acos",
        "atan" => "Atan", "sinh" => "Sinh", "cosh" => "Cosh", "asinh" => "Asinh", "acosh" => "Acosh", "atanh" => "Atanh")
    named(function_name, name)
end
scalar(op -> Scalar(x -> "-$x"), "Neg")
scalar(op -> Scalar(x -> "!($x)"), "Not")

with_alpha(function_name, name) = scalar(op -> (α = literal(float(op, "alpha")); Scalar(x -> "$function_name($x, $α)")), name)
with_alpha("leakyrelu", "LeakyRelu")
with_alpha("elu", "Elu")
with_alpha("celu", "Celu")

scalar("Selu") do op
    α, γ = float(op, "alpha"), float(op, "gamma")
    α ≈ 1.6732632f0 && γ ≈ 1.050701f0 ? Scalar("selu") :
        Scalar(x -> "$(literal(γ)) * ifelse($x > 0, $x, $(literal(α)) * expm1($x))")
end
scalar("HardSigmoid") do op
    α, β = float(op, "alpha"), float(op, "beta")
    α ≈ 1 / 6 && β == 0.5 ? Scalar("hardsigmoid") : Scalar(x -> "clamp($(literal(α)) * $x + $(literal(β)), 0f0, 1f0)")
end
scalar(op -> Scalar(x -> "ifelse($x > $(literal(float(op, "alpha"))), $x, zero($x))"), "ThresholdedRelu")
scalar(op -> float(op, "alpha") == 1 ? Scalar("swish") : Scalar(x -> "$x * sigmoid($(literal(float(op, "alpha"))) * $x)"), "Swish")
scalar(op -> Scalar(text(op, "approximate") == "tanh" ? "gelu_tanh" : "gelu_erf"), "Gelu")
scalar("Clip") do op
    bounds = FluxdropWorker.clamp_of(op)
    bounds.low == 0 && bounds.high == 6 ? Scalar("relu6") :
        bounds.low == 0 && bounds.high == Inf ? Scalar("relu") :
        Scalar(x -> "clamp($x, $(literal(bounds.low)), $(literal(bounds.high)))")
end

foreach(name -> writes(site -> scalar!(site, SCALARS[name](site.op)), name), collect(keys(SCALARS)))

"Whether all values that are read have one size, so that no number is broadcast."
same_size(site) = all(x -> x isa Value && x.sizes == site.sizes, site.arguments)

"Register an operator of two inputs between which `symbol` is written."
function infix(symbol, name; plain=nothing)
    writes(name) do site
        all(x -> x isa Value, site.arguments) || return expression!(site, "$(operand!(site, 1)) $symbol $(operand!(site, 2))")
        repeated = site.arguments[1].name == site.arguments[2].name
        code = "$(operand!(site, 1)) $symbol $(operand!(site, 2))"
        expression!(site, code, repeated ? "" : plain !== nothing && same_size(site) ? plain : symbol)
    end
end

infix(".+", "Add"; plain="+")
infix(".-", "Sub")
infix("./", "Div")
infix(".==", "Equal")
infix(".>", "Greater")
infix(".<", "Less")
infix(".>=", "GreaterOrEqual")
infix(".<=", "LessOrEqual")
infix(".&", "And")
infix(".|", "Or")
infix(".⊻", "Xor")
infix(".*", "Mul")

# A product with constants is a layer, as in the layer scale of ConvNeXt.
const multiply = WRITERS["Mul"]
writes("Mul") do site
    at = findfirst(x -> x isa Value, site.arguments)
    other = at === nothing ? nothing : site.arguments[3-at]
    x = at === nothing ? nothing : site.arguments[at]
    fits = other isa Array{Float32} && length(other) > 1 && x.sizes == site.sizes && ndims(other) <= length(x.sizes[1])
    fits || return multiply(site)
    site.arguments = Any[x]
    layer!(site, Layer("scale", call("Flux.Scale", map(string, size(other))...; bias="false"), [:scale => other]))
end

writes("Pow") do site
    exponent = site.arguments[2]
    exponent isa Array && length(exponent) == 1 || return expression!(site, "$(operand!(site, 1)) .^ $(operand!(site, 2))")
    e = Float32(first(exponent))
    expression!(site, e == 2 ? "abs2.($(operand!(site, 1)))" : e == 0.5f0 ? "sqrt.($(operand!(site, 1)))" :
        "$(operand!(site, 1)) .^ $(isinteger(e) ? string(Int(e)) : literal(e))")
end

writes("PRelu") do site
    x, slope = operand!(site, 1), operand!(site, 2)
    expression!(site, "ifelse.($x .< 0, $slope .* $x, $x)")
end

writes("Where") do site
    condition = operand!(site, 1)
    site.arguments[1] isa Value || (condition = "($condition .!= 0)")
    expression!(site, "ifelse.($condition, $(operand!(site, 2)), $(operand!(site, 3)))")
end

writes(site -> expression!(site, "mod.($(operand!(site, 1)), $(operand!(site, 2)))"), "Mod")

function variadic(name, join_operands)
    writes(name) do site
        length(site.arguments) == 1 ? pass!(site) :
            expression!(site, join_operands([operand!(site, i) for i in 1:length(site.arguments)]))
    end
end
variadic("Min", names -> "min.($(join(names, ", ")))")
variadic("Max", names -> "max.($(join(names, ", ")))")
variadic("Sum", names -> join(names, " .+ "))
variadic("Mean", names -> "($(join(names, " .+ "))) ./ $(length(names))")

writes("Cast") do site
    to = int(site.op, "to")
    to in (1, 10, 11) ? expression!(site, "Float32.($(operand!(site, 1)))") :
        to == 9 ? expression!(site, "$(operand!(site, 1)) .!= 0") : cannot(site, "it makes whole numbers of values")
end

function normalise!(site, name)
    op, rank = site.op, length(value(site).sizes[1])
    if int(op, "coerce", 0) != 0 && int(op, "axis") != -1 && int(op, "axis") != rank - 1
        cannot(site, "it runs over several dimensions")
    end
    d = dimension(rank, int(op, "axis"))
    d == 1 ? expression!(site, "$name($(operand!(site, 1)))", name) : expression!(site, "$name($(operand!(site, 1)); dims=$d)")
end
writes(site -> normalise!(site, "softmax"), "Softmax")
writes(site -> normalise!(site, "logsoftmax"), "LogSoftmax")

"Register a reduction: `code(x, dims, count)` is its code, of `count` numbers each."
function reduction(code, name)
    writes(name) do site
        op, sizes = site.op, value(site).sizes[1]
        axes = given(site, 2) ? Int.(vec(optional_constant(op, 2, Int64))) : Int[]
        dims = sort(OnnxLayers.reduced_dims(length(sizes), isempty(axes) ? nothing : axes, int(op, "noop_with_empty_axes", 0) == 0))
        isempty(dims) && cannot(site, "it reduces no axis")
        keeps = int(op, "keepdims") != 0
        length(sizes) in dims && cannot(site, "it reduces the batch")
        pixels = name == "ReduceMean" && length(sizes) in 3:5 && dims == 1:length(sizes)-2
        site.arguments = site.arguments[1:1]
        pixels && keeps && return layer!(site, Layer("pool", "GlobalMeanPool()", []))
        list = length(dims) == 1 ? string(dims[1]) : literal(Tuple(dims))
        if pixels
            between = site.outputs[1] * " with its dimensions"
            push!(site.pieces, Piece(op.node, [value(site).name], between, Layer("pool", "GlobalMeanPool()", []), "", Array[], ""))
            site.arguments[1] = Value(between, value(site).sizes)
            return expression!(site, "Flux.flatten($(operand!(site, 1)))", "Flux.flatten")
        end
        whole = code(operand!(site, 1), list, prod(sizes[dims]))
        expression!(site, keeps ? whole : "dropdims($whole; dims=$list)")
    end
end
reduction((x, dims, n) -> "sum($x; dims=$dims)", "ReduceSum")
reduction((x, dims, n) -> "sum($x; dims=$dims) ./ $n", "ReduceMean")
reduction((x, dims, n) -> "maximum($x; dims=$dims)", "ReduceMax")
reduction((x, dims, n) -> "minimum($x; dims=$dims)", "ReduceMin")
reduction((x, dims, n) -> "prod($x; dims=$dims)", "ReduceProd")
reduction((x, dims, n) -> "sum(abs, $x; dims=$dims)", "ReduceL1")
reduction((x, dims, n) -> "sqrt.(sum(abs2, $x; dims=$dims))", "ReduceL2")
reduction((x, dims, n) -> "sum(abs2, $x; dims=$dims)", "ReduceSumSquare")
reduction((x, dims, n) -> "log.(sum($x; dims=$dims))", "ReduceLogSum")
reduction((x, dims, n) -> "logsumexp($x; dims=$dims)", "ReduceLogSumExp")
