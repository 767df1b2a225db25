conv_line(inputs; strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1, operator="Conv") =
    "node $operator in=$inputs out=y name=n strides=$(join(strides, ',')) pads=$(join(pads, ',')) " *
    "dilations=$(join(dilations, ',')) group=$group"

function conv_agrees(x, w; options...)
    b = numbers(size(w, 4)) ./ 3
    expected = conv_reference(x, w, b; options...)
    without = conv_reference(x, w, zero(b); options...)
    agrees(run_node(conv_line("x,w,b"; options...), x, "w" => w, "b" => b), expected) &&
        agrees(run_node(conv_line("x,w"; options...), x, "w" => w), without)
end

@testset "Conv is ONNX's cross-correlation, with every option" begin
    x = numbers(9, 7, 4, 2)
    @test conv_agrees(x, numbers(3, 3, 4, 5))
    @test conv_agrees(x, numbers(1, 1, 4, 3))
    @test conv_agrees(x, numbers(1, 1, 4, 3); strides=(2, 2))
    @test conv_agrees(x, numbers(1, 1, 4, 3); pads=(1, 0, 0, 1))
    @test conv_agrees(x, numbers(2, 3, 4, 5))
    @test conv_agrees(x, numbers(3, 2, 4, 5); pads=(1, 2, 0, 1))
    @test conv_agrees(x, numbers(3, 3, 4, 5); strides=(2, 1), pads=(0, 1, 2, 0))
    @test conv_agrees(x, numbers(3, 2, 4, 5); dilations=(2, 3), pads=(1, 1, 1, 1))
    @test conv_agrees(x, numbers(3, 3, 4, 5); strides=(3, 2), dilations=(1, 2), pads=(2, 3, 1, 0))
    @test conv_agrees(x, numbers(9, 7, 4, 2))
    @test conv_agrees(numbers(2, 2, 4, 1), numbers(3, 3, 4, 2); pads=(3, 3, 3, 3))
end

@testset "Conv supports groups, down to one input channel each" begin
    x = numbers(6, 5, 4, 2)
    @test conv_agrees(x, numbers(3, 3, 2, 6); group=2, pads=(1, 1, 1, 1))
    @test conv_agrees(x, numbers(1, 1, 2, 6); group=2)
    @test conv_agrees(x, numbers(3, 2, 1, 4); group=4, pads=(1, 0, 1, 2), strides=(2, 1))
    @test conv_agrees(x, numbers(3, 3, 1, 8); group=4, dilations=(2, 1), pads=(2, 1, 2, 1))
end

@testset "Conv gives the same result if its output has several tiles" begin
    @test conv_agrees(numbers(60, 50, 30, 1), numbers(3, 3, 30, 2); pads=(1, 1, 1, 1))
    @test conv_agrees(numbers(50, 60, 60, 3), numbers(3, 1, 30, 4); group=2, strides=(1, 2))
    @test conv_agrees(numbers(6, 1, 8, 1), numbers(2, 1, 8, 7))
end

@testset "Conv gives the same result if its tiles divide the channels, of which there are more than pixels" begin
    @test conv_agrees(numbers(7, 7, 96, 1), numbers(1, 1, 96, 121))
    @test conv_agrees(numbers(6, 5, 60, 3), numbers(3, 3, 30, 82); group=2, strides=(1, 2), pads=(1, 1, 1, 1))
end

@testset "depthwise Conv supports every stride, dilation and padding" begin
    for strides in ((1, 1), (2, 1), (1, 3), (4, 5)), dilations in ((1, 1), (2, 3)), pads in ((0, 0, 0, 0), (2, 0, 1, 3))
        @test conv_agrees(numbers(11, 9, 3, 2), numbers(3, 2, 1, 6); group=3, strides=strides, dilations=dilations, pads=pads)
    end
end

@testset "depthwise Conv supports kernels and planes of every size" begin
    for kernel in ((1, 1), (3, 3), (5, 5), (7, 7), (2, 13)), plane in ((1, 1), (7, 7), (30, 17)), strides in ((1, 1), (2, 2))
        before, after = reverse(kernel) .÷ 2, (reverse(kernel) .- 1) .÷ 2
        @test conv_agrees(numbers(plane..., 5, 2), numbers(kernel..., 1, 5); group=5, strides=strides, pads=(before..., after...))
    end
end

@testset "depthwise Conv gives the same result for many planes in several chunks" begin
    @test conv_agrees(numbers(9, 8, 700, 3), numbers(3, 3, 1, 700); group=700, pads=(1, 1, 1, 1))
end

@testset "NaN and Inf affect only the outputs whose window contains them" begin
    x = numbers(8, 7, 4, 2)
    x[1, 1, 1, 1], x[8, 7, 2, 1], x[8, 1, 4, 1] = NaN, Inf, -Inf
    for strides in ((1, 1), (2, 2)), (w, group) in ((numbers(3, 3, 1, 4), 4), (numbers(3, 3, 2, 2), 2))
        options = (strides=strides, pads=(1, 1, 1, 1), group=group)
        expected = conv_reference(x, w, zeros(size(w, 4)); options...)
        @test all(y -> all(isapprox.(y, expected; atol=1f-5, nans=true)), run_node(conv_line("x,w"; options...), x, "w" => w))
    end
end

@testset "one-dimensional Conv equals two-dimensional Conv with a dimension of size 1" begin
    x, w, b = numbers(9, 4, 2), numbers(3, 2, 6), numbers(6)
    expected = conv_reference(reshape(x, 9, 1, 4, 2), reshape(w, 3, 1, 2, 6), b;
                              strides=(1, 2), pads=(0, 1, 0, 2), dilations=(1, 2), group=2)
    line = conv_line("x,w,b"; strides=(2,), pads=(1, 2), dilations=(2,), group=2)
    @test agrees(run_node(line, x, "w" => w, "b" => b), reshape(expected, :, 6, 2))
end

"ONNX's Conv in any number of dimensions, without bias. `x` is (spatial..., C, N); options are in ONNX's order."
function volume_conv_reference(x, w; strides, pads, dilations, group)
    n = ndims(x) - 2
    s, d, before, after = reverse(strides), reverse(dilations), reverse(pads[1:n]), reverse(pads[n+1:end])
    sizes = ntuple(i -> (size(x, i) + before[i] + after[i] - d[i] * (size(w, i) - 1) - 1) ÷ s[i] + 1, n)
    share, out = size(w, n + 1), size(w, n + 2)
    y = zeros(Float32, sizes..., out, size(x, n + 2))
    for at in CartesianIndices(y), c in 1:share, tap in CartesianIndices(size(w)[1:n])
        place = ntuple(i -> (at[i] - 1) * s[i] - before[i] + (tap[i] - 1) * d[i] + 1, n)
        channel = (at[n+1] - 1) ÷ (out ÷ group) * share + c
        checkbounds(Bool, x, place..., channel, at[n+2]) && (y[at] += x[place..., channel, at[n+2]] * w[tap, c, at[n+1]])
    end
    return y
end

"ONNX's ConvTranspose: each number of `x` is added to all taps of its window. `w` is (spatial..., out ÷ group, C)."
function transpose_reference(x, w, b; strides, pads, dilations, group, output_padding)
    n = ndims(x) - 2
    s, d, before, after = reverse(strides), reverse(dilations), reverse(pads[1:n]), reverse(pads[n+1:end])
    sizes = ntuple(i -> (size(x, i) - 1) * s[i] + d[i] * (size(w, i) - 1) + 1 - before[i] - after[i] + reverse(output_padding)[i], n)
    share = size(w, n + 1)
    y = zeros(Float32, sizes..., share * group, size(x, n + 2)) .+ reshape(b, ntuple(_ -> 1, n)..., :)
    for at in CartesianIndices(x), o in 1:share, tap in CartesianIndices(size(w)[1:n])
        place = ntuple(i -> (at[i] - 1) * s[i] - before[i] + (tap[i] - 1) * d[i] + 1, n)
        channel = (at[n+1] - 1) ÷ (size(x, n + 1) ÷ group) * share + o
        checkbounds(Bool, y, place..., channel, at[n+2]) && (y[place..., channel, at[n+2]] += x[at] * w[tap, o, at[n+1]])
    end
    return y
end

@testset "Conv supports one to three spatial dimensions" begin
    for (x, w, options) in (
        (numbers(7, 4, 2), numbers(3, 4, 5), (strides=(2,), pads=(2, 1), dilations=(2,), group=1)),
        (numbers(5, 6, 4, 4, 2), numbers(2, 3, 2, 4, 3), (strides=(1, 2, 1), pads=(1, 0, 1, 0, 2, 0), dilations=(2, 1, 1), group=1)),
        (numbers(5, 4, 3, 4, 1), numbers(1, 1, 1, 2, 6), (strides=(1, 1, 1), pads=(0, 0, 0, 0, 0, 0), dilations=(1, 1, 1), group=2)),
        (numbers(5, 4, 6, 3, 2), numbers(3, 2, 3, 1, 6), (strides=(2, 1, 1), pads=(1, 1, 0, 1, 0, 2), dilations=(1, 1, 2), group=3)),
    )
        @test agrees(run_node(conv_line("x,w"; options...), x, "w" => w), volume_conv_reference(x, w; options...))
    end
    @test occursin("4 dimensions are expected, not 3",
                   message(() -> run_node(conv_line("x,w"), numbers(5, 4, 2), "w" => numbers(3, 3, 4, 2)), F.ComputeError))
end

@testset "ConvTranspose adds each number to all taps of its window" begin
    one = (strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1, output_padding=(0, 0))
    for (x, w, options) in (
        (numbers(4, 3, 4, 2), numbers(3, 2, 5, 4), one),
        (numbers(4, 3, 4, 2), numbers(3, 3, 2, 4), merge(one, (strides=(2, 3), pads=(1, 0, 2, 1), group=2))),
        (numbers(4, 3, 4, 1), numbers(2, 3, 1, 4), merge(one, (dilations=(2, 3), group=4, pads=(0, 1, 0, 0)))),
        (numbers(4, 3, 2, 1), numbers(3, 3, 3, 2), merge(one, (strides=(3, 2), pads=(1, 1, 1, 1), output_padding=(2, 1)))),
        (numbers(4, 3, 2, 1), numbers(2, 2, 3, 2), merge(one, (strides=(1, 2), dilations=(3, 1), output_padding=(2, 4)))),
        (numbers(5, 4, 2), numbers(3, 2, 4), (strides=(2,), pads=(1, 0), dilations=(2,), group=2, output_padding=(1,))),
        (numbers(3, 2, 4, 2, 2), numbers(2, 3, 2, 3, 2),
         (strides=(1, 2, 2), pads=(1, 0, 0, 0, 1, 1), dilations=(1, 2, 1), group=1, output_padding=(0, 1, 0))),
    )
        b = numbers(size(w, ndims(w) - 1) * options.group)
        line(inputs) = conv_line(inputs; operator="ConvTranspose", strides=options.strides, pads=options.pads,
                                 dilations=options.dilations, group=options.group) *
                       " output_padding=$(join(options.output_padding, ','))"
        @test agrees(run_node(line("x,w,b"), x, "w" => w, "b" => b), transpose_reference(x, w, b; options...))
        @test agrees(run_node(line("x,w"), x, "w" => w), transpose_reference(x, w, zero(b); options...))
    end
end

@testset "ConvTranspose applies a fused activation, also to the part that output padding adds" begin
    x, w, b = numbers(3, 2, 2, 1), numbers(2, 2, 3, 2), numbers(3)
    options = (strides=(1, 2), pads=(0, 0, 0, 0), dilations=(1, 1), group=1)
    for padding in ((0, 0), (1, 3))
        lines = [replace(conv_line("x,w,b"; operator="ConvTranspose", options...), "out=y" => "out=z") *
                 " output_padding=$(join(padding, ','))", "node Relu in=z out=y name=r"]
        file = graph_file((1, 2, 2, 3), ("w" => w, "b" => b), lines)
        expected = max.(transpose_reference(x, w, b; options..., output_padding=padding), 0)
        @test agrees([F.predict(F.build!(F.read_graph(file), backend), x) for backend in BACKENDS], expected)
    end
end
