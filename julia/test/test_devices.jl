# A fake GPU. Its arrays support the operations on whole arrays that a GPU's arrays have, and throw if single elements are
# accessed. Layers from outside this package compute on their contents, as Flux's layers do on a GPU. All operator tests
# are run again on this device.

struct DeviceArray{T,N} <: AbstractArray{T,N}
    data::Array{T,N}
end

to_host(x::DeviceArray) = x.data
to_host(x) = x
wrap(x::Array) = DeviceArray(x)
wrap(x) = x

Base.size(x::DeviceArray) = size(x.data)
Base.getindex(x::DeviceArray, ::Int...) = error("an element of a device array was read")
Base.setindex!(x::DeviceArray, value, ::Int...) = error("an element of a device array was written")
Base.getindex(x::DeviceArray, places::Array) = DeviceArray(x.data[places])
Base.strides(x::DeviceArray) = strides(x.data)
Base.reshape(x::DeviceArray, dims::Dims) = DeviceArray(reshape(x.data, dims))
Base._reshape(x::DeviceArray, dims::Dims) = reshape(x, dims)
Base.vec(x::DeviceArray) = DeviceArray(vec(x.data))
Base.permutedims(x::DeviceArray, order) = DeviceArray(permutedims(x.data, order))
Base.cat(x::DeviceArray, xs::DeviceArray...; dims) = DeviceArray(cat(x.data, map(to_host, xs)...; dims=dims))
Base.mapreduce(f, op, x::DeviceArray; dims=:, init) = wrap(mapreduce(f, op, x.data; dims=dims, init=init))
Base.sum(x::DeviceArray; dims) = DeviceArray(sum(x.data; dims=dims))
Base.sum(f, x::DeviceArray; dims) = DeviceArray(sum(f, x.data; dims=dims))
Base.transpose(x::DeviceArray) = DeviceArray(permutedims(x.data))
Base.:*(a::DeviceArray{T,2}, b::DeviceArray{T,2}) where {T} = DeviceArray(a.data * b.data)
F.OnnxLayers.rmul!(x::DeviceArray, α::Number) = (x.data .*= α; x)

struct DeviceStyle <: Broadcast.AbstractArrayStyle{Any} end
DeviceStyle(::Val) = DeviceStyle()
Base.BroadcastStyle(::Type{<:DeviceArray}) = DeviceStyle()
# Mixing device arrays and arrays in memory is an error, as on a GPU.
Base.BroadcastStyle(::DeviceStyle, ::Broadcast.DefaultArrayStyle{0}) = DeviceStyle()
host(argument) = argument
host(argument::DeviceArray) = argument.data
host(argument::Array) = error("a device array is mixed with one in memory")
host(argument::Broadcast.Broadcasted) = Broadcast.broadcasted(argument.f, map(host, argument.args)...)
function Base.copy(b::Broadcast.Broadcasted{DeviceStyle})
    y = Broadcast.materialize(host(b))
    return DeviceArray(y isa AbstractArray ? Array(y) : fill(y))
end

for f in (:softmax, :logsoftmax)
    @eval F.PlainLayers.$f(x::DeviceArray; dims=1) = DeviceArray(F.PlainLayers.$f(x.data; dims=dims))
end
F.PlainLayers.batched_mul(a::DeviceArray, b::DeviceArray) = DeviceArray(F.PlainLayers.batched_mul(a.data, b.data))
F.PlainLayers.PoolDims(x::DeviceArray, kernel; options...) = F.PlainLayers.PoolDims(x.data, kernel; options...)
F.PlainLayers.maxpool(x::DeviceArray, dims::F.PlainLayers.Window) = DeviceArray(F.PlainLayers.maxpool(x.data, dims))
F.PlainLayers.meanpool(x::DeviceArray, dims::F.PlainLayers.Window) = DeviceArray(F.PlainLayers.meanpool(x.data, dims))

to_device(x::Array) = DeviceArray(x)
to_device(x::DeviceArray) = x
to_device(layer) = x -> x isa DeviceArray ? wrap(layer(x.data)) : error("the layer $layer gets an array in memory")
const FAKE_GPU = F.Backend("plain", F.PlainLayers, nothing, F.Device("fake-gpu", to_device, to_host), "")

@testset "operators give the same results on a device without access to elements" begin
    cpu_backends = copy(BACKENDS)
    append!(empty!(BACKENDS), [FAKE_GPU])
    try
        for name in ("convolution", "pooling", "normalisation", "resampling", "elementwise", "reductions", "shape", "matmul")
            include("test_$name.jl")
        end
    finally
        append!(empty!(BACKENDS), cpu_backends)
    end
end

"For each layer of a graph on the fake GPU, whether it computes there."
function computing(lines, constants...; shape=(2, 3, 4))
    model = F.build!(F.read_graph(graph_file(shape, constants, lines)), FAKE_GPU)
    return [layer.device_layer !== nothing for step in model.steps for layer in step.layers.layers if layer isa F.DeviceLayer]
end

@testset "the layers of a transformer compute on the device and have their weights there" begin
    lines = ["node Transpose in=x out=t name=t perm=0,2,1", "node MatMul in=x,t out=m name=m", "node Softmax in=m out=s name=s axis=2",
             "node LayerNormalization in=s,w out=l name=l axis=2 epsilon=1e-5 stash_type=1",
             "node Add in=l,w out=a name=a", "node Slice in=a,zero,one,two out=c name=c", "node ReduceMean in=c,two out=y name=y keepdims=1"]
    @test computing(lines, "w" => Float32[1, 2, 3], "zero" => Int64[0], "one" => Int64[1], "two" => Int64[2]) == trues(7)
    bound = F.place_on_device(F.Bound(F.Elementwise(+), Any[F.COMPUTED, ones(Float32, 2)]), FAKE_GPU.device)
    @test bound.device_layer.inputs[2] isa DeviceArray && bound.cpu_layer.inputs[2] isa Array
end

@testset "shapes and indices stay on the CPU" begin
    shape = ["node Shape in=x out=s name=s start=0 end=99", "node Reshape in=x,s out=y name=y allowzero=0"]
    @test computing(shape) == [true, true]
    bound = F.place_on_device(F.Bound(F.Reshape(false), Any[F.COMPUTED, Int64[6, 4]]), FAKE_GPU.device)
    @test bound.device_layer.inputs[2] isa Array
end

@testset "HELLO names the device" begin
    _, _, hello = served(backend=FAKE_GPU)
    @test occursin("device=fake-gpu\n", text(hello))
end

@testset "a native model computes on the device" begin
    device = F.Device("fake-gpu", x -> x isa Array ? DeviceArray(x) : x, to_host)
    backend = F.Backend("flux", F.PlainLayers, F.PlainLayers, device, "")
    x = numbers(3, 2, 1, 4)
    with_native("build_model() = x -> (x isa Array && error(\"in memory\"); reshape(2 .* x, (6, 4)))") do path
        @test F.predict(F.load_native(path, backend), x) ≈ 2 .* reshape(x, 6, 4)
    end
end
