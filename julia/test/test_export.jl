# The Flux code that `fluxdrop model export` writes. That it runs in Flux and gives onnxruntime's results is proven by
# tests/predict/test_flux_export.py.

include(joinpath(@__DIR__, "..", "export", "FluxExport.jl"))

exported(constants, nodes, shape=(3, 8, 8); output="y") =
    FluxExport.flux_code(F.read_graph(graph_file((-1, shape...), constants, nodes, output)), shape)

"The part of the code between `architecture() = ` and `build_model`, without the comments."
function architecture(constants, nodes, shape=(3, 8, 8))
    text, _ = exported(constants, nodes, shape)
    code = split(split(text, "architecture() = ")[2], "\nfunction build_model")[1]
    return replace(strip(code), r"  # .*" => "")
end

"The lines of the function of a struct."
lines_of(constants, nodes, shape=(3, 8, 8)) =
    [strip(replace(line, r"  # .*" => "")) for line in split(exported(constants, nodes, shape)[1], '\n') if occursin(r"^    x\d+ = ", line)]

unexportable(nodes, constants=[]) = message(() -> exported(constants, nodes), F.OperatorError)

const WINDOW = "dilations=1,1 group=1 pads=1,1,1,1 strides=1,1"
conv(from, to, name; window=WINDOW) = "node Conv in=$from,w,b out=$to name=$name $window"
const CONV = ["w" => numbers(3, 3, 3, 3), "b" => numbers(3)]

@testset "a graph without branches is a Chain with one line for each layer" begin
    constants = ["w" => numbers(3, 3, 3, 4), "b" => numbers(4), "v" => numbers(4, 2), "c" => numbers(2)]
    nodes = [conv("x", "a", "n1"; window="dilations=1,1 group=1 pads=1,1,1,1 strides=2,2"),
             "node Relu in=a out=b1 name=n2",
             "node MaxPool in=b1 out=p name=n3 ceil_mode=0 dilations=1,1 kernel_shape=2,2 pads=0,0,0,0 storage_order=0 strides=2,2",
             "node GlobalAveragePool in=p out=g name=n4", "node Flatten in=g out=f name=n5 axis=1",
             "node Gemm in=f,v,c out=d name=n6 alpha=1.0 beta=1.0 transA=0 transB=1",
             "node Softmax in=d out=y name=n7 axis=1 coerce=0"]
    text, weights = exported(constants, nodes)
    @test occursin("""
        architecture() = Chain(
            Conv((3, 3), 3 => 4, relu; stride=2, pad=1),  # n1
            MaxPool((2, 2)),  # n3
            GlobalMeanPool(),  # n4
            Flux.flatten,  # n5
            Dense(4 => 2),  # n6
            softmax,  # n7
        )
        """, text)
    @test [path for (path, _) in weights] == [[1], [5]]
    kernel = constants[1][2]
    @test weights[1][2] == [:weight => reverse(reverse(kernel; dims=1); dims=2), :bias => constants[2][2]]
    @test weights[2][2] == [:weight => permutedims(constants[3][2]), :bias => constants[4][2]]
end

@testset "a sum with the input of a branch is a SkipConnection, and its weights have the path into it" begin
    nodes = [conv("x", "a", "n1"), "node Relu in=a out=r name=n2", conv("r", "c", "n3"), "node Add in=c,x out=s name=n4",
             "node Relu in=s out=y name=n5"]
    text, weights = exported(CONV, nodes)
    @test architecture(CONV, nodes) == """
        Chain(
            SkipConnection(
                Chain(
                    Conv((3, 3), 3 => 3, relu; pad=1),
                    Conv((3, 3), 3 => 3; pad=1),
                ),
                +
            ),
            relu,
        )"""
    @test [path for (path, _) in weights] == [[1, :layers, 1], [1, :layers, 2]]
end

@testset "other branches that meet are Parallel, in the order of the inputs" begin
    nodes = [conv("x", "a", "n1"), conv("x", "c", "n2"), "node Concat in=c,a,x out=y name=n3 axis=1"]
    _, weights = exported(CONV, nodes)
    @test architecture(CONV, nodes) == """
        Chain(
            Parallel(
                (x1, x2, x3) -> cat(x1, x2, x3; dims=3),
                Conv((3, 3), 3 => 3; pad=1),
                Conv((3, 3), 3 => 3; pad=1),
                identity,
            ),
        )"""
    @test [path for (path, _) in weights] == [[1, :layers, 1], [1, :layers, 2]]
    difference = architecture(CONV, [conv("x", "a", "n1"), "node Sub in=x,a out=y name=n2"])
    @test occursin("Parallel(\n        .-,\n        identity,\n        Conv(", difference)
end

@testset "a branch inside a branch is a SkipConnection inside a SkipConnection" begin
    nodes = [conv("x", "a", "n1"), "node GlobalAveragePool in=a out=g name=n2", "node Sigmoid in=g out=s name=n3",
             "node Mul in=a,s out=m name=n4", "node Add in=m,x out=y name=n5"]
    code = architecture(CONV, nodes)
    @test occursin(r"SkipConnection\(\s+Chain\(\s+Conv.*\n\s+SkipConnection\(\s+Chain\(\s+GlobalMeanPool\(\),\s+sigmoid,\s+\),\s+\.\*\s+\),\s+\),\s+\+\s+\)", code)
end

@testset "branches that cross, and constants beside layers, make a struct with a line for each node" begin
    nodes = [conv("x", "a", "n1"), conv("a", "c", "n2"), "node Add in=a,x out=s name=n3", "node Add in=s,c out=t name=n4",
             "node Add in=t,k out=y name=n5"]
    text, weights = exported([CONV; "k" => numbers(8, 8, 3)], nodes)
    @test occursin("""
            x1 = m.conv1(x)  # n1
            x2 = m.conv2(x1)  # n2
            x3 = x1 .+ x  # n3
            x4 = x3 .+ x2  # n4
            x5 = x4 .+ m.constant1  # n5
            return x5
        """, text)
    @test occursin("constant1 = zeros32(8, 8, 3),", text)
    @test [path for (path, _) in weights] == [[:layers, :conv1], [:layers, :conv2], [:layers, :constant1]]
end

@testset "sizes that a model computes are numbers in the code" begin
    nodes = ["node Shape in=x out=s name=n1 start=0 end=1", "node Concat in=s,rest out=t name=n2 axis=0",
             "node Reshape in=x,t out=r name=n3 allowzero=0", "node Transpose in=r out=y name=n4 perm=0,2,1"]
    @test architecture(["rest" => Int64[3, 64]], nodes) == """
        Chain(
            x -> reshape(x, 64, 3, :),
            x -> permutedims(x, (2, 1, 3)),
        )"""
end

@testset "a constant that is repeated for each picture is kept once" begin
    nodes = ["node Shape in=x out=s name=n1 start=0 end=1", "node Concat in=s,rest out=t name=n2 axis=0",
             "node Expand in=k,t out=e name=n3", "node Concat in=x,e out=y name=n4 axis=1"]
    constants = ["rest" => Int64[1, 8, 8], "k" => numbers(8, 8, 1, 1)]
    @test lines_of(constants, nodes) == ["x1 = cat(x, repeat(m.constant1, 1, 1, 1, size(x)[end]); dims=3)"]
    @test exported(constants, nodes)[2] == Any[Any[:layers, :constant1] => Pair{Symbol,Any}[Symbol() => constants[2][2]]]
end

@testset "a product with a matrix and the sum with a vector after it are a Dense" begin
    nodes = ["node Flatten in=x out=f name=n1 axis=1", "node MatMul in=f,m out=p name=n2", "node Add in=v,p out=a name=n3",
             "node Gelu in=a out=y name=n4 approximate=none"]
    @test occursin("Dense(192 => 2, gelu_erf),", architecture(["m" => numbers(2, 192), "v" => numbers(2)], nodes))
end

@testset "what Flux cannot compute is refused with the node's name" begin
    @test unexportable(["node LRN in=x out=y name=norm1 alpha=0.1 beta=0.75 bias=1.0 size=3"]) ==
        "node norm1 (LRN): Flux has no layer or function for it"
    pool = "ceil_mode=0 count_include_pad=0 dilations=1,1 kernel_shape=3,3 pads=1,1,1,1 strides=1,1"
    @test unexportable(["node AveragePool in=x out=y name=p $pool"]) ==
        "node p (AveragePool): it cannot be written in Flux: its windows at the edge count fewer pixels than Flux's"
    @test unexportable(["node Conv in=x,x out=y name=c $WINDOW"]) |> startswith("node c (Conv): ")
end

@testset "a model for one number of pictures, or for others, is refused" begin
    fixed = F.read_graph(graph_file((2, 3, 8, 8), [], ["node Relu in=x out=y name=n"]))
    @test occursin("exactly 2 pictures", message(() -> FluxExport.flux_code(fixed, (3, 8, 8)), F.GraphError))
    free = F.read_graph(graph_file((-1, 3, 8, 8), [], ["node Relu in=x out=y name=n"]))
    @test occursin("not pictures of", message(() -> FluxExport.flux_code(free, (1, 8, 8)), F.GraphError))
end

@testset "no name of a node gets out of its comment" begin
    text, _ = exported([], ["node Relu in=x out=a name=n%0Aexit()%0D%C3%A9", "node Abs in=a out=y name=-"])
    @test occursin("relu,  # nexit()\n", text)
    @test !occursin("\nexit()", text)
end

@testset "a model that takes channels last gets a Flux model that takes WHCN" begin
    graph = F.read_graph(graph_file((-1, 8, 6, 3), [], ["node Transpose in=x out=t name=n perm=0,3,1,2", "node Relu in=t out=y name=r"]))
    text, _ = FluxExport.flux_code(graph, (3, 8, 6); channels_last=true)
    @test occursin("(6, 8, 3, N)", text)
    @test occursin("x -> permutedims(x, (3, 1, 2, 4)),", text)
end
