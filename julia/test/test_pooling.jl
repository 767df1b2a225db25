"""
ONNX's pooling in any number of dimensions: `reduce(numbers, places)` of each window's numbers within the input, and its
number of positions within the padded input. Options are in ONNX's order.
"""
function pool_reference(reduce, x; kernel_shape, strides, pads, dilations, ceil_mode)
    n = ndims(x) - 2
    k, s, d = reverse(kernel_shape), reverse(strides), reverse(dilations)
    before, after = reverse(pads[1:n]), reverse(pads[n+1:end])
    sizes = ntuple(n) do i
        room = size(x, i) + before[i] + after[i] - d[i] * (k[i] - 1) - 1
        ceil_mode == 0 && return room ÷ s[i] + 1
        outputs = cld(room, s[i]) + 1
        (outputs - 1) * s[i] >= size(x, i) + before[i] ? outputs - 1 : outputs
    end
    y = zeros(Float32, sizes..., size(x, n + 1), size(x, n + 2))
    for at in CartesianIndices(y)
        seen, places = Float32[], 0
        for tap in CartesianIndices(k)
            place = ntuple(i -> (at[i] - 1) * s[i] - before[i] + (tap[i] - 1) * d[i] + 1, n)
            all(i -> 1 - before[i] <= place[i] <= size(x, i) + after[i], 1:n) && (places += 1)
            all(i -> 1 <= place[i] <= size(x, i), 1:n) && push!(seen, x[place..., at[n+1], at[n+2]])
        end
        y[at] = reduce(seen, places)
    end
    return y
end

pool_line(operator, o, rest="") =
    "node $operator in=x out=y name=n kernel_shape=$(join(o.kernel_shape, ',')) strides=$(join(o.strides, ',')) " *
    "pads=$(join(o.pads, ',')) dilations=$(join(o.dilations, ',')) ceil_mode=$(o.ceil_mode)$rest"

@testset "poolings follow their definitions, with every option" begin
    plain = (kernel_shape=(2, 2), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), ceil_mode=0)
    plane, line, volume = numbers(9, 8, 3, 2), numbers(10, 3, 2), numbers(6, 5, 7, 2, 2)
    for (x, options) in (
        (plane, (strides=(2, 2),)),
        (plane, (kernel_shape=(3, 2), strides=(1, 2), pads=(1, 0, 0, 1))),
        (plane, (kernel_shape=(3, 3), strides=(2, 3), pads=(1, 1, 1, 1))),
        (plane, (kernel_shape=(1, 4),)),
        (plane, (kernel_shape=(8, 9), strides=(8, 9))),
        (plane, (kernel_shape=(8, 9), strides=(8, 9), pads=(1, 1, 0, 0))),
        (plane, (kernel_shape=(2, 3), strides=(1, 2), pads=(1, 0, 0, 1), dilations=(3, 2))),
        (plane, (kernel_shape=(3, 3), strides=(2, 2), ceil_mode=1)),
        (plane, (kernel_shape=(3, 2), strides=(3, 4), pads=(1, 0, 1, 1), ceil_mode=1)),
        (plane, (kernel_shape=(2, 2), strides=(3, 3), pads=(1, 1, 1, 1), dilations=(2, 1), ceil_mode=1)),
        (plane[1:2, 1:2, :, :], (kernel_shape=(1, 1), strides=(2, 2), ceil_mode=1)),
        (line, (kernel_shape=(3,), strides=(2,), pads=(1, 0), dilations=(2,), ceil_mode=1)),
        (line, (kernel_shape=(4,), strides=(3,), pads=(2, 1), dilations=(1,))),
        (volume, (kernel_shape=(2, 3, 2), strides=(2, 1, 2), pads=(1, 0, 1, 0, 1, 0), dilations=(1, 1, 1))),
        (volume, (kernel_shape=(3, 2, 2), strides=(2, 2, 3), pads=(1, 1, 0, 0, 1, 1), dilations=(2, 1, 1), ceil_mode=1)),
    )
        o = merge(plain, options)
        answers(operator, rest) = run_node(pool_line(operator, o, " $rest"), x)
        expected(reduce) = pool_reference(reduce, x; o...)
        @test agrees(answers("MaxPool", "storage_order=1"), expected((seen, n) -> maximum(seen)))
        @test agrees(answers("AveragePool", "count_include_pad=1"), expected((seen, n) -> sum(seen) / n))
        @test agrees(answers("AveragePool", "count_include_pad=0"), expected((seen, n) -> sum(seen) / length(seen)))
        @test agrees(answers("LpPool", "p=2"), expected((seen, n) -> sqrt(sum(abs2, seen))))
        @test agrees(answers("LpPool", "p=3"), expected((seen, n) -> cbrt(sum(v -> abs(v)^3, seen))))
    end
end

@testset "MaxPool returns the largest number, however small it is" begin
    x = fill(-3f38, 4, 4, 1, 1)
    o = (kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), dilations=(1, 1), ceil_mode=0)
    @test run_node(pool_line("MaxPool", o), x)[1] == fill(-3f38, 2, 2, 1, 1)
end

@testset "global pooling returns one number for each channel" begin
    for x in (numbers(5, 3, 4, 2), numbers(7, 4, 2), numbers(3, 2, 4, 3, 2))
        planes = Tuple(1:ndims(x)-2)
        @test agrees(run_node("node GlobalAveragePool in=x out=y name=n", x), sum(x; dims=planes) .* (size(x, ndims(x) - 1) * size(x, ndims(x)) / length(x)))
        @test agrees(run_node("node GlobalMaxPool in=x out=y name=n", x), maximum(x; dims=planes))
        @test agrees(run_node("node GlobalLpPool in=x out=y name=n p=2", x), sqrt.(sum(abs2, x; dims=planes)))
        @test agrees(run_node("node GlobalLpPool in=x out=y name=n p=1", x), sum(abs, x; dims=planes))
    end
end

@testset "MaxPool returns the indices of its maxima in the whole tensor, the first of equal ones" begin
    o = (kernel_shape=(3, 2), strides=(2, 1), pads=(1, 0, 0, 1), dilations=(1, 2), ceil_mode=0)
    x = round.(3 .* numbers(6, 5, 3, 2))
    line(order) = replace(pool_line("MaxPool", o, " storage_order=$order"), "out=y" => "out=m,y")
    rows = reshape(0:length(x)-1, size(x))
    columns = permutedims(reshape(0:length(x)-1, 5, 6, 3, 2), (2, 1, 3, 4))
    for (order, places) in ((0, rows), (1, columns))
        # The window's positions in ONNX's order are those in Julia's memory.
        expected = similar(run_node(pool_line("MaxPool", o, " storage_order=0"), x)[1])
        for at in CartesianIndices(expected)
            seen = [(at[1] + 2i, 2at[2] - 2 + j) for i in 0:1, j in 0:2]
            inside = filter(p -> checkbounds(Bool, x, p..., at[3], at[4]), vec(seen))
            best = argmax([x[p..., at[3], at[4]] for p in inside])
            expected[at] = places[inside[best]..., at[3], at[4]]
        end
        @test agrees(run_node(line(order), x), expected)
    end
end
