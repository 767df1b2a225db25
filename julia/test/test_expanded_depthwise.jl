# Pointwise and depthwise convolutions that are computed together.

"The plain model of a pointwise convolution of `x`, its activation and a depthwise convolution, and the graph's other `nodes`."
function expansion_model(x, w, b, k, c, nodes=String[], output="y"; options...)
    lines = [replace(conv_line("x,w,b"), "out=y" => "out=e"), "node Relu in=e out=r name=r",
             conv_line("r,k,c"; group=size(k, 4), options...), nodes...]
    return F.build!(F.read_graph(graph_file(reverse(size(x)), ("w" => w, "b" => b, "k" => k, "c" => c), lines, output)), BACKENDS[1])
end

"The layers of a model that are two convolutions at once."
expansions(model) = count(l -> l isa F.PlainLayers.ExpandedDepthwise, [l for s in model.steps for l in s.layers.layers])

"""
Whether a pointwise convolution of (width, height, inputs, images) to so many `channels` and then a depthwise one with the `kernel` are
computed together and are what they are defined to be, on one thread and on all, as often as they are called.
"""
function expansion_agrees(width, height, inputs, channels, images, kernel; options...)
    x, w, b = numbers(width, height, inputs, images), numbers(1, 1, inputs, channels), numbers(channels) ./ 2
    k, c = numbers(kernel..., 1, channels), numbers(channels) ./ 3
    expected = conv_reference(max.(conv_reference(x, w, b), 0), k, c; group=channels, options...)
    model = expansion_model(x, w, b, k, c; options...)
    expansions(model) == 1 || return false
    F.PlainLayers.empty_buffers!()  # so that the first call is on one thread
    return agrees([F.predict(model, x) for _ in 1:3], expected)
end

@testset "an expansion and its depthwise Conv give what they are defined to be, for planes and channels of every size" begin
    for (width, height) in ((1, 1), (2, 5), (7, 7), (14, 14), (15, 3), (30, 17), (56, 5), (113, 4)), (inputs, channels) in ((1, 2), (3, 7), (4, 16), (8, 40), (5, 33))
        @test expansion_agrees(width, height, inputs, channels, 2, (3, 3); pads=(1, 1, 1, 1))
    end
end

@testset "an expansion's depthwise Conv supports every kernel, stride, dilation and padding" begin
    for kernel in ((1, 1), (3, 3), (5, 5), (2, 7), (4, 1)), strides in ((1, 1), (2, 2), (1, 3), (3, 2)), pads in ((0, 0, 0, 0), (0, 0, 1, 1), (2, 4, 1, 0), (6, 6, 6, 6)), dilations in ((1, 1), (2, 1), (1, 2))
        @test expansion_agrees(14, 13, 3, 20, 1, kernel; strides=strides, pads=pads, dilations=dilations)
    end
end

@testset "an expansion gives the same result where threads share an image, and where images are many" begin
    @test expansion_agrees(40, 75, 4, 10, 1, (5, 5); pads=(2, 2, 2, 2))
    @test expansion_agrees(60, 90, 3, 20, 1, (3, 3); pads=(0, 0, 1, 1), strides=(2, 2))
    @test expansion_agrees(9, 8, 20, 200, 3, (3, 3); pads=(1, 1, 1, 1))
    @test expansion_agrees(6, 7, 4, 24, 17, (3, 3); pads=(1, 1, 1, 1))
end

@testset "NaN and Inf in an expansion affect only the outputs whose window contains them" begin
    x, w, k = numbers(9, 8, 2, 1), abs.(numbers(1, 1, 2, 20)), numbers(3, 3, 1, 20)
    x[1, 1, 1, 1], x[9, 8, 2, 1] = NaN, Inf
    b, c = numbers(20), numbers(20)
    expected = conv_reference(conv_reference(x, w, b), k, c; group=20, pads=(1, 1, 1, 1))
    lines = [replace(conv_line("x,w,b"), "out=y" => "out=e"), conv_line("e,k,c"; group=20, pads=(1, 1, 1, 1))]
    model = F.build!(F.read_graph(graph_file((1, 2, 8, 9), ("w" => w, "b" => b, "k" => k, "c" => c), lines)), BACKENDS[1])
    @test expansions(model) == 1
    @test all(isapprox.(F.predict(model, x), expected; atol=1f-5, nans=true))
end

@testset "an expansion takes any number of images, one call after the other, and does without biases" begin
    w, k = numbers(1, 1, 3, 12), numbers(3, 3, 1, 12)
    lines = [replace(conv_line("x,w"), "out=y" => "out=e"), conv_line("e,k"; group=12)]
    model = F.build!(F.read_graph(graph_file((-1, 3, -1, -1), ("w" => w, "k" => k), lines)), BACKENDS[1])
    @test expansions(model) == 1
    for (width, height, images) in ((5, 6, 1), (8, 7, 4), (5, 6, 2))
        x = numbers(width, height, 3, images)
        expected = conv_reference(conv_reference(x, w, zeros(12)), k, zeros(12); group=12)
        @test agrees([F.predict(model, x)], expected)
    end
    @test occursin("larger than its padded input", message(() -> F.predict(model, numbers(2, 2, 3, 1)), F.ComputeError))
end

@testset "an expansion that something else reads, or whose next Conv is no depthwise one, is computed alone" begin
    x, w, b = numbers(6, 5, 3, 1), numbers(1, 1, 3, 8), numbers(8)
    k, c = numbers(3, 3, 1, 8), numbers(8)
    expanded = max.(conv_reference(x, w, b), 0)
    y = conv_reference(expanded, k, c; group=8, pads=(1, 1, 1, 1))
    model = expansion_model(x, w, b, k, c, ["node Add in=y,r out=z name=z"], "z"; pads=(1, 1, 1, 1))
    @test expansions(model) == 0
    @test agrees([F.predict(model, x)], y .+ expanded)
    for (kernel, group) in ((numbers(3, 3, 8, 8), 1), (numbers(3, 3, 4, 8), 2), (numbers(3, 3, 1, 16), 8))
        lines = [replace(conv_line("x,w,b"), "out=y" => "out=e"), conv_line("e,k"; group=group)]
        model = F.build!(F.read_graph(graph_file((1, 3, 5, 6), ("w" => w, "b" => b, "k" => kernel), lines)), BACKENDS[1])
        @test expansions(model) == 0
        expected = conv_reference(conv_reference(x, w, b), kernel, zeros(size(kernel, 4)); group=group)
        @test agrees([F.predict(model, x)], expected)
    end
end
