const RELU = "node Relu in=x out=y name=n"

graph_error(text, data=UInt8[]) = message(() -> F.read_graph(raw_graph(text, data)), F.GraphError)

@testset "constants of a graph file have reversed dimensions" begin
    w, s = numbers(4, 3), fill(Int64(5))
    graph = F.read_graph(graph_file((-1, 2), ["w" => w, "s" => s], ["node Foo in=x,w,-,s out=y name=%2Fa%20b k=1,2 f=1e-05 e="]))
    @test graph.input == "x" && graph.shape == [-1, 2] && graph.output == "y"
    @test graph.constants["w"] == w && graph.constants["s"][] == 5
    node = graph.nodes[1]
    @test node.name == "/a b" && node.inputs == ["x", "w", "-", "s"] && node.outputs == ["y"]
    @test node.attributes == Dict("k" => ["1", "2"], "f" => ["1e-05"], "e" => String[])
end

@testset "percent-encoded names are decoded, also those with commas" begin
    @test F.percent_decode("a%2C%C3%A9%25") == "a,é%"
    @test occursin("percent", message(() -> F.percent_decode("%4"), F.GraphError))
    @test occursin("percent", message(() -> F.percent_decode("%zz"), F.GraphError))
    @test occursin("UTF-8", message(() -> F.percent_decode("%ff"), F.GraphError))
end

@testset "a truncated file, or one of another format, throws GraphError" begin
    good = graph_file((1, 3), ["w" => numbers(3)], ["node Add in=x,w out=y name=n"])
    for n in 0:length(good)-1
        @test_throws F.GraphError F.read_graph(good[1:n])
    end
    @test occursin("begins", message(() -> F.read_graph(raw_graph("", magic="FLUXDROQ")), F.GraphError))
    @test occursin("version 2", message(() -> F.read_graph(raw_graph("", version=2)), F.GraphError))
    @test occursin("past the end", message(() -> F.read_graph([good[1:16]; fill(0xff, 8); good[25:end]]), F.GraphError))
end

@testset "the error for a bad statement has its line number" begin
    start = "input x float32 1,2\n"
    @test occursin("line 2: unknown statement", graph_error(start * "foo\n"))
    @test occursin("line 2: a second input", graph_error(start * "input z float32 1\n"))
    @test occursin("float32", graph_error("input x float64 1\n"))
    @test occursin("impossible", graph_error("input x float32 -2\n"))
    @test occursin("not a whole number", graph_error("input x float32 a\n"))
    @test occursin("9 dimensions", graph_error("input x float32 1,1,1,1,1,1,1,1,1\n"))
    @test occursin("before it is defined", graph_error(start * "node Relu in=z out=y name=n\n"))
    @test occursin("defined twice", graph_error(start * "node Relu in=x out=x name=n\n"))
    @test occursin("given twice", graph_error(start * "node Relu in=x out=y name=n a=1 a=2\n"))
    @test occursin("'out=' is expected", graph_error(start * "node Relu in=x name=n out=y\n"))
    @test occursin("no output", graph_error(start * RELU * "\n"))
    @test occursin("no input", graph_error("\n"))
    @test occursin("ASCII", graph_error("input ü float32 1\n"))
end

@testset "tensors have to lie within the file and have no more bytes than it in total" begin
    start = "input x float32 1,2\n"
    @test occursin("past the end", graph_error(start * "tensor t float32 17 0\n", zeros(UInt8, 64)))
    @test occursin("past the end", graph_error(start * "tensor t float32 1 64\n", zeros(UInt8, 64)))
    @test occursin("past the end", graph_error(start * "tensor t float32 2147483647,2147483647,2147483647 0\n", zeros(UInt8, 64)))
    @test occursin("past the end", graph_error(start * "tensor t float32 16 0\ntensor u float32 16 0\n", zeros(UInt8, 64)))
    @test occursin("multiple of 64", graph_error(start * "tensor t float32 1 4\n", zeros(UInt8, 64)))
    @test occursin("multiple of 64", graph_error(start * "tensor t float32 1 -64\n", zeros(UInt8, 64)))
    @test occursin("float64", graph_error(start * "tensor t float64 1 0\n", zeros(UInt8, 64)))
end
