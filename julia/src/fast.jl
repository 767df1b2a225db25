# fast(model): a Flux model made of fluxdrop's layers. The methods for Flux's layers are in ext/flux_layers.jl.

using .PlainLayers: POOL_LOCK, with_one_blas_thread

"""
    fast(model) -> FastModel

Return a model that computes what the Flux `model` computes in test mode, with this package's layers: batch norms are
folded into the convolutions before them, activations are fused into layers, and buffers are used again. `model` stays as
it is; weights that are not changed are shared with it. Load Flux first.

Layers that are not known, those on a GPU and those with other weights than `Float32` are kept and called as they are. So
is a layer in training mode (`Flux.trainmode!`).
"""
fast(model) = FastModel(fast_layer(model))

"""
    fast(model::Model) -> Model

The model of a graph with this package's layers, from one of Flux's on the CPU. The worker builds it of them at once.
"""
function fast(model::Model)
    steps = Step[]
    for s in model.steps
        layers = Any[fast_layer(s.layers[i]) for i in eachindex(s.nodes)]
        push!(steps, Step(layers, copy(s.nodes), s.inputs, s.outputs, Int[], Int[], Int[]))
    end
    return link_steps(steps, model.shape, model.slots, model.output, model.nodes, plain_backend(""))
end

"What [`fast`](@ref) returns. Its calls take turns, as all models share buffers."
struct FastModel
    layers::Any
end

function (m::FastModel)(xs...)
    lock(POOL_LOCK) do
        with_one_blas_thread() do
            reset_pool_for!(map(size, filter(x -> x isa AbstractArray, xs)))
            y = m.layers(xs...)
            WARMED_UP[] = !precompiling()
            return y
        end
    end
end

Base.show(io::IO, m::FastModel) = print(io, "fast(", m.layers, ")")

"""
    fast_layer(layer)

The layer of this package that computes what `layer` does, or `layer` itself if there is none. Tuples, vectors and immutable
structs with layers in them, as models have that are structs of their own, are made anew of fast layers where their
constructor allows it. Functions in them stay: only the struct knows whether it applies them to an array or to each number.
"""
fast_layer(layers::Tuple) = map(fast_field, layers)
fast_layer(layers::NamedTuple) = map(fast_field, layers)
fast_layer(x::Union{AbstractArray{<:Number},Number,AbstractString,Symbol,Type,Module}) = x
fast_layer(f::Function) = f

fast_field(f::Function) = f
fast_field(layer) = fast_layer(layer)

function fast_layer(layers::Vector)
    made = Any[fast_field(layer) for layer in layers]
    return all(i -> made[i] === layers[i], eachindex(layers)) ? layers : made
end

isdefined(Base, :ComposedFunction) && @eval fast_field(f::ComposedFunction) = fast_layer(f)
isdefined(Base, :ComposedFunction) && @eval fast_layer(f::ComposedFunction) = fast_layer(f.outer) ∘ fast_layer(f.inner)

function fast_layer(@nospecialize(layer))
    T = typeof(layer)
    isstructtype(T) && !is_mutable_type(T) && fieldcount(T) > 0 || return layer
    fields = ntuple(i -> getfield(layer, i), fieldcount(T))
    made = map(fast_field, fields)
    all(i -> made[i] === fields[i], eachindex(fields)) && return layer
    try
        return Base.typename(T).wrapper(made...)
    catch
        # Its constructor takes only the layers that it knows.
        return layer
    end
end

is_mutable_type(T) = isdefined(Base, :ismutabletype) ? ismutabletype(T) : T.mutable

"""
    run_fast_workload(flux)

Make a Flux model with the layers that image classifiers consist of fast, and run it.
"""
function run_fast_workload(flux)
    model = flux.Chain(
        flux.Conv((3, 3), 1 => 4; pad=1, bias=false), flux.BatchNorm(4, flux.relu), flux.MaxPool((2, 2)),
        flux.SkipConnection(flux.Chain(flux.DepthwiseConv((3, 3), 4 => 4, flux.relu; pad=1), flux.BatchNorm(4)), +),
        flux.GlobalMeanPool(), flux.flatten, flux.Dense(4 => 2), flux.softmax)
    quick = fast(flux.testmode!(model))
    foreach(batch -> quick(zeros(Float32, 8, 8, 1, batch)), (1, 2))
    PlainLayers.empty_buffers!()
    return nothing
end
