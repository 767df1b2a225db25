# A device that stands in for a GPU: arrays that do as a whole what a GPU's arrays do, and that give out no element.
# Layers that are not this worker's own compute behind its back, as Flux's do on a GPU. All tests of operators are
# run again on it.

struct Remote{T,N} <: AbstractArray{T,N}
    data::Array{T,N}
end

unremote(x::Remote) = x.data
unremote(x) = x
remote(x::Array) = Remote(x)
remote(x) = x

Base.size(x::Remote) = size(x.data)
Base.getindex(x::Remote, ::Int...) = error("an element of a remote array was asked for")
Base.setindex!(x::Remote, value, ::Int...) = error("an element of a remote array was written")
Base.getindex(x::Remote, places::Array) = Remote(x.data[places])
Base.strides(x::Remote) = strides(x.data)
Base.reshape(x::Remote, dims::Dims) = Remote(reshape(x.data, dims))
Base._reshape(x::Remote, dims::Dims) = reshape(x, dims)
Base.vec(x::Remote) = Remote(vec(x.data))
Base.permutedims(x::Remote, order) = Remote(permutedims(x.data, order))
Base.cat(x::Remote, xs::Remote...; dims) = Remote(cat(x.data, map(unremote, xs)...; dims=dims))
Base.mapreduce(f, op, x::Remote; dims=:, init) = remote(mapreduce(f, op, x.data; dims=dims, init=init))
Base.sum(x::Remote; dims) = Remote(sum(x.data; dims=dims))
Base.sum(f, x::Remote; dims) = Remote(sum(f, x.data; dims=dims))
Base.transpose(x::Remote) = Remote(permutedims(x.data))
Base.:*(a::Remote{T,2}, b::Remote{T,2}) where {T} = Remote(a.data * b.data)
F.OnnxLayers.rmul!(x::Remote, α::Number) = (x.data .*= α; x)

struct RemoteStyle <: Broadcast.AbstractArrayStyle{Any} end
RemoteStyle(::Val) = RemoteStyle()
Base.BroadcastStyle(::Type{<:Remote}) = RemoteStyle()
# What mixes with arrays in memory is an error on a GPU.
Base.BroadcastStyle(::RemoteStyle, ::Broadcast.DefaultArrayStyle{0}) = RemoteStyle()
near(argument) = argument
near(argument::Remote) = argument.data
near(argument::Array) = error("a remote array meets one in memory")
near(argument::Broadcast.Broadcasted) = Broadcast.broadcasted(argument.f, map(near, argument.args)...)
function Base.copy(b::Broadcast.Broadcasted{RemoteStyle})
    y = Broadcast.materialize(near(b))
    return Remote(y isa AbstractArray ? Array(y) : fill(y))
end

for f in (:softmax, :logsoftmax)
    @eval F.PlainLayers.$f(x::Remote; dims=1) = Remote(F.PlainLayers.$f(x.data; dims=dims))
end
F.PlainLayers.batched_mul(a::Remote, b::Remote) = Remote(F.PlainLayers.batched_mul(a.data, b.data))
F.PlainLayers.PoolDims(x::Remote, kernel; options...) = F.PlainLayers.PoolDims(x.data, kernel; options...)
F.PlainLayers.maxpool(x::Remote, dims::F.PlainLayers.Window) = Remote(F.PlainLayers.maxpool(x.data, dims))
F.PlainLayers.meanpool(x::Remote, dims::F.PlainLayers.Window) = Remote(F.PlainLayers.meanpool(x.data, dims))

to_remote(x::Array) = Remote(x)
to_remote(x::Remote) = x
to_remote(layer) = x -> x isa Remote ? remote(layer(x.data)) : error("the layer $layer gets an array in memory")
const REMOTE = F.Backend("plain", F.PlainLayers, "", F.Device("remote", to_remote, unremote), "")

@testset "on a device that gives out no element" begin
    here = copy(BACKENDS)
    append!(empty!(BACKENDS), [REMOTE])
    try
        for name in ("convolution", "pooling", "normalisation", "resampling", "elementwise", "reductions", "shape", "matmul")
            include("test_$name.jl")
        end
    finally
        append!(empty!(BACKENDS), here)
    end
end

"The layers of a graph on the remote device that compute there."
function computing(lines, constants...; shape=(2, 3, 4))
    model = F.build(F.read_graph(graph_file(shape, constants, lines)), REMOTE)
    return [layer.device_layer !== nothing for step in model.steps for layer in step.layers.layers if layer isa F.DeviceLayer]
end

@testset "what a transformer is made of computes on the device, and its weights are there" begin
    lines = ["node Transpose in=x out=t name=t perm=0,2,1", "node MatMul in=x,t out=m name=m", "node Softmax in=m out=s name=s axis=2",
             "node LayerNormalization in=s,w out=l name=l axis=2 epsilon=1e-5 stash_type=1",
             "node Add in=l,w out=a name=a", "node Slice in=a,zero,one,two out=c name=c", "node ReduceMean in=c,two out=y name=y keepdims=1"]
    @test computing(lines, "w" => Float32[1, 2, 3], "zero" => Int64[0], "one" => Int64[1], "two" => Int64[2]) == trues(7)
    bound = F.place_on_device(F.Bound(F.Elementwise(+), Any[F.COMPUTED, ones(Float32, 2)]), REMOTE.device)
    @test bound.device_layer.inputs[2] isa Remote && bound.cpu_layer.inputs[2] isa Array
end

@testset "what is read as a shape or a place stays on the CPU" begin
    shape = ["node Shape in=x out=s name=s start=0 end=99", "node Reshape in=x,s out=y name=y allowzero=0"]
    @test computing(shape) == [true, true]
    bound = F.place_on_device(F.Bound(F.Reshape(false), Any[F.COMPUTED, Int64[6, 4]]), REMOTE.device)
    @test bound.device_layer.inputs[2] isa Array
end

@testset "HELLO tells the device" begin
    _, _, hello = served(backend=REMOTE)
    @test occursin("device=remote\n", text(hello))
end

@testset "a native model computes on the device" begin
    device = F.Device("remote", x -> x isa Array ? Remote(x) : x, unremote)
    backend = F.Backend("flux", F.PlainLayers, "0", device, "")
    x = numbers(3, 2, 1, 4)
    with_native("build_model() = x -> (x isa Array && error(\"in memory\"); reshape(2 .* x, (6, 4)))") do path
        @test F.predict(F.load_native(path, backend), x) ≈ 2 .* reshape(x, 6, 4)
    end
end
