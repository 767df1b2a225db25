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

@testset "Conv divides its channels into groups, down to one a channel" begin
    x = numbers(6, 5, 4, 2)
    @test conv_agrees(x, numbers(3, 3, 2, 6); group=2, pads=(1, 1, 1, 1))
    @test conv_agrees(x, numbers(1, 1, 2, 6); group=2)
    @test conv_agrees(x, numbers(3, 2, 1, 4); group=4, pads=(1, 0, 1, 2), strides=(2, 1))
    @test conv_agrees(x, numbers(3, 3, 1, 8); group=4, dilations=(2, 1), pads=(2, 1, 2, 1))
end

@testset "Conv in one dimension is Conv in two, of which one has size 1" begin
    x, w, b = numbers(9, 4, 2), numbers(3, 2, 6), numbers(6)
    expected = conv_reference(reshape(x, 9, 1, 4, 2), reshape(w, 3, 1, 2, 6), b;
                              strides=(1, 2), pads=(0, 1, 0, 2), dilations=(1, 2), group=2)
    line = conv_line("x,w,b"; strides=(2,), pads=(1, 2), dilations=(2,), group=2)
    @test agrees(run_node(line, x, "w" => w, "b" => b), reshape(expected, :, 6, 2))
end

@testset "a pooling looks at every position that its window sees" begin
    x = numbers(9, 8, 3, 2)
    top(seen, n) = maximum(seen)
    counted(seen, n) = sum(seen) / n
    uncounted(seen, n) = sum(seen) / length(seen)
    for options in ((kernel=(2, 2), strides=(2, 2)), (kernel=(3, 2), strides=(1, 2), pads=(1, 0, 0, 1)),
                    (kernel=(3, 3), strides=(2, 3), pads=(1, 1, 1, 1)), (kernel=(1, 4),))
        o = merge((strides=(1, 1), pads=(0, 0, 0, 0)), options)
        line(operator, rest) = "node $operator in=x out=y name=n kernel_shape=$(join(o.kernel, ',')) " *
                               "strides=$(join(o.strides, ',')) pads=$(join(o.pads, ',')) ceil_mode=0 $rest"
        @test agrees(run_node(line("MaxPool", "dilations=1,1 storage_order=0"), x), pool_reference(top, x; o...))
        @test agrees(run_node(line("AveragePool", "count_include_pad=1"), x), pool_reference(counted, x; o...))
        @test agrees(run_node(line("AveragePool", "count_include_pad=0"), x), pool_reference(uncounted, x; o...))
    end
    dilated = "node MaxPool in=x out=y name=n kernel_shape=2,3 strides=1,2 pads=1,0,0,1 dilations=3,2 ceil_mode=0 storage_order=0"
    @test agrees(run_node(dilated, x),
                 pool_reference(top, x; kernel=(2, 3), strides=(1, 2), pads=(1, 0, 0, 1), dilations=(3, 2)))
end

@testset "global pooling leaves one number a channel" begin
    x = numbers(5, 3, 4, 2)
    @test agrees(run_node("node GlobalAveragePool in=x out=y name=n", x), sum(x, dims=(1, 2)) ./ 15)
    @test agrees(run_node("node GlobalMaxPool in=x out=y name=n", x), maximum(x, dims=(1, 2)))
end

@testset "BatchNormalization uses the statistics it is given" begin
    γ, β, μ, v = numbers(4), numbers(4) .+ 1, numbers(4) ./ 2, abs.(numbers(4)) .+ 0.1f0
    line = "node BatchNormalization in=x,g,b,m,v out=y name=n epsilon=0.001 training_mode=0"
    constants = ("g" => γ, "b" => β, "m" => μ, "v" => v)
    channels(p) = reshape(p, 1, 1, 4, 1)
    x = numbers(3, 2, 4, 2)
    @test agrees(run_node(line, x, constants...),
                 channels(γ) .* (x .- channels(μ)) ./ sqrt.(channels(v) .+ 0.001f0) .+ channels(β))
    flat = numbers(4, 3)
    @test agrees(run_node(line, flat, constants...), γ .* (flat .- μ) ./ sqrt.(v .+ 0.001f0) .+ β)
end
