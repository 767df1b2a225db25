resize_line(inputs; mode="linear", coordinates="half_pixel", nearest="round_prefer_floor", policy="stretch", antialias=0,
            exclude=0, a=-0.75, outside=0.0, axes="") =
    "node Resize in=$inputs out=y name=n mode=$mode coordinate_transformation_mode=$coordinates nearest_mode=$nearest " *
    "keep_aspect_ratio_policy=$policy antialias=$antialias exclude_outside=$exclude cubic_coeff_a=$a " *
    "extrapolation_value=$outside axes=$axes"

"The coordinates in a dimension of length `n` for the positions of one of length `m`, by ONNX's formulas."
origins(mode, n, m) =
    mode == "half_pixel" ? [(j + 0.5) * n / m - 0.5 for j in 0:m-1] :
    mode == "pytorch_half_pixel" ? [m > 1 ? (j + 0.5) * n / m - 0.5 : 0.0 for j in 0:m-1] :
    mode == "align_corners" ? [m > 1 ? j * (n - 1) / (m - 1) : 0.0 for j in 0:m-1] : [j * n / m for j in 0:m-1]

nearest_to(x, i) = x[clamp(i, 0, length(x) - 1)+1]
function linear_at(x, at)
    left, share = floor(Int, at), at - floor(at)
    return (1 - share) * nearest_to(x, left) + share * nearest_to(x, left + 1)
end

@testset "Resize interpolates at the coordinates of its coordinate_transformation_mode" begin
    x = numbers(5, 7, 2, 2)
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"), (w, h) in ((9, 4), (3, 14), (1, 7), (5, 1))
        rows = mapslices(row -> [linear_at(row, at) for at in origins(coordinates, 5, w)], x; dims=1)
        expected = mapslices(column -> [linear_at(column, at) for at in origins(coordinates, 7, h)], rows; dims=2)
        @test agrees(run_node(resize_line("x,-,-,s"; coordinates=coordinates), x, "s" => Int64[2, 2, h, w]), expected)
        @test agrees(run_node(resize_line("x,-,-,s"; coordinates=coordinates, axes="3,2"), x, "s" => Int64[w, h]), expected)
    end
    doubled = run_node(resize_line("x,-,s"), x, "s" => Float32[1, 1, 2, 2])
    @test agrees(run_node(resize_line("x,r,e,s"), x, "r" => Float32[], "e" => Float32[], "s" => Int64[2, 2, 14, 10]), doubled[1])
end

@testset "Resize selects the nearest number as its nearest_mode rounds, in one to three dimensions" begin
    roundings = ("round_prefer_floor" => at -> ceil(Int, at - 0.5), "round_prefer_ceil" => at -> floor(Int, at + 0.5),
                 "floor" => at -> floor(Int, at), "ceil" => at -> ceil(Int, at))
    for (mode, rounding) in roundings, coordinates in ("half_pixel", "asymmetric"), (n, m) in ((4, 8), (6, 3), (5, 4))
        sources = [clamp(rounding(at), 0, n - 1) + 1 for at in origins(coordinates, n, m)]
        line = resize_line("x,-,-,s"; mode="nearest", coordinates=coordinates, nearest=mode)
        @test agrees(run_node(line, numbers(n, 2, 1), "s" => Int64[1, 2, m]), numbers(n, 2, 1)[sources, :, :])
        @test agrees(run_node(line, numbers(2, n, 3, 2, 1), "s" => Int64[1, 2, 3, m, 2]), numbers(2, n, 3, 2, 1)[:, sources, :, :, :])
    end
end

@testset "Resize follows its keep_aspect_ratio_policy" begin
    x = numbers(4, 2, 1, 1)
    small = run_node(resize_line("x,-,-,s"; mode="nearest", policy="not_larger", axes="2,3"), x, "s" => Int64[7, 8])
    large = run_node(resize_line("x,-,-,s"; mode="nearest", policy="not_smaller", axes="2,3"), x, "s" => Int64[7, 8])
    @test all(y -> size(y) == (8, 4, 1, 1), small) && all(y -> size(y) == (14, 7, 1, 1), large)
end

@testset "Resize agrees with ONNX's examples for its other modes" begin
    x = reshape(Float32.(1:16), 4, 4, 1, 1)
    answers(scale; options...) = run_node(resize_line("x,-,s"; options...), x, "s" => Float32[1, 1, scale, scale])
    square(values...) = reshape(collect(Float32, values), isqrt(length(values)), :, 1, 1)
    @test agrees(answers(0.6; antialias=1), square(2.875, 4.5, 9.375, 11.0))
    @test agrees(answers(0.6; antialias=1, mode="cubic"), square(2.5180721, 4.2858863, 9.589329, 11.357142))
    @test agrees(answers(0.8; mode="cubic"), square(1.47119141, 2.78125, 4.08251953, 6.71142578, 8.02148438, 9.32275391,
                                                   11.91650391, 13.2265625, 14.52783203))
    @test agrees(answers(0.8; mode="cubic", a=-0.5, exclude=1), square(1.36812675, 2.6695014, 4.0133367, 6.57362535, 7.875,
                                                                      9.2188353, 11.94896657, 13.25034122, 14.59417652))
    line = resize_line("x,r,-,s"; coordinates="tf_crop_and_resize", outside=10.0)
    @test agrees(run_node(line, x, "r" => Float32[0, 0, 0.4, 0.6, 1, 1, 1.2, 1.7], "s" => Int64[1, 1, 3, 3]),
                 square(7.6, 10, 10, 12.4, 10, 10, 10, 10, 10); atol=1f-4)
    halves = reshape(Float32.(1:4), 4, 1, 1)
    @test agrees(run_node(resize_line("x,-,s"; coordinates="half_pixel_symmetric"), halves, "s" => Float32[1, 1, 0.6]),
                 reshape(Float32[1.6666667, 3.3333333], 2, 1, 1))
end

@testset "Upsample is an asymmetric Resize, with scales as an input or an attribute" begin
    x = numbers(3, 2, 2, 1)
    for (mode, expected) in ("nearest" => x[[1, 1, 2, 2, 3, 3], [1, 1, 1, 2, 2, 2], :, :],
                             "linear" => run_node(resize_line("x,-,s"; coordinates="asymmetric"), x, "s" => Float32[1, 1, 3, 2])[1])
        @test agrees(run_node("node Upsample in=x,s out=y name=n mode=$mode", x, "s" => Float32[1, 1, 3, 2]), expected)
        @test agrees(run_node("node Upsample in=x out=y name=n mode=$mode scales=1.0,1.0,3.0,2.0", x), expected)
    end
end

@testset "Pad fills, reflects, repeats or wraps, and crops with negative pads" begin
    x = numbers(4, 3, 2, 1)
    pad(mode, inputs, constants...) = run_node("node Pad in=$inputs out=y name=n mode=$mode", x, constants...)
    sources = ("reflect" => [2, 1, 2, 3, 4, 3, 2, 1], "edge" => [1, 1, 2, 3, 4, 4, 4, 4], "wrap" => [4, 1, 2, 3, 4, 1, 2, 3])
    for (mode, places) in sources
        @test agrees(pad(mode, "x,p", "p" => Int64[0, 0, 0, 1, 0, 0, -1, 3]), x[places, 1:2, :, :])
        @test agrees(pad(mode, "x,p,-,a", "p" => Int64[1, 3], "a" => Int64[-1]), x[places, :, :, :])
    end
    filled(value) = cat(fill(value, 2, 2, 2, 1), x[:, 2:3, :, :], fill(value, 1, 2, 2, 1); dims=1)
    @test agrees(pad("constant", "x,p", "p" => Int64[0, 0, -1, 2, 0, 0, 0, 1]), filled(0f0))
    @test agrees(pad("constant", "x,p,v", "p" => Int64[0, 0, -1, 2, 0, 0, 0, 1], "v" => fill(1.5f0)), filled(1.5f0))
    @test agrees(pad("constant", "x,p,v,a", "p" => Int64[2, -1, 1, 0], "v" => fill(1.5f0), "a" => Int64[3, 2]), filled(1.5f0))
    @test occursin("take more away", message(() -> pad("edge", "x,p", "p" => Int64[0, 0, 0, -3, 0, 0, 0, -2]), F.ComputeError))
end

@testset "SpaceToDepth and DepthToSpace are inverse, in both orders of channels" begin
    x = numbers(6, 4, 2, 2)
    line(operator, mode) = "node $operator in=x out=y name=n blocksize=2 mode=$mode"
    dcr = cat((x[i:2:end, j:2:end, :, :] for j in 1:2 for i in 1:2)...; dims=3)
    crd = cat((x[i:2:end, j:2:end, c:c, :] for c in 1:2 for j in 1:2 for i in 1:2)...; dims=3)
    for (mode, deep) in ("DCR" => dcr, "CRD" => crd)
        @test agrees(run_node(line("SpaceToDepth", mode), x), deep)
        @test agrees(run_node(line("DepthToSpace", mode), deep), x)
    end
end
