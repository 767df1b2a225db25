# Winograd's method against the definition, and where it is used. The numbers are large in proportion to their errors only
# over many channels, so errors are measured against the largest number of the result.

"A random number's stand-in: sums of these over channels do not cancel or align, unlike those of `numbers`."
function random_numbers(seed, dims...)
    state = UInt32(seed)
    y = Array{Float32}(undef, dims...)
    for i in eachindex(y)
        state = state * 0x0019660d + 0x3c6ef35f
        y[i] = Float32(state >> 8) / Float32(1 << 23) - 1
    end
    return y
end

"The largest error of the plain layer's `winograd!`, in proportion to the largest number of the result."
function winograd_error(width, height, inputs, outputs, images; pad=1, bias=true, σ=identity)
    P = F.PlainLayers
    x, w = random_numbers(1, width, height, inputs, images), random_numbers(2, 3, 3, inputs, outputs)
    b = bias ? random_numbers(3, outputs) : zeros(Float32, outputs)
    sides = pad isa Integer ? (pad, pad, pad, pad) : pad
    expected = σ.(conv_reference(x, reverse(reverse(w; dims=1); dims=2), b; pads=(sides[3], sides[1], sides[4], sides[2])))
    c = P.Conv(w, bias ? b : false, σ; pad=pad)
    y = fill(NaN32, size(expected, 1), size(expected, 2), 1, outputs, images)
    P.winograd!(y, reshape(x, width, height, 1, inputs, images), c)
    return maximum(abs.(reshape(y, size(expected)) .- expected)) / maximum(abs.(expected))
end

@testset "Winograd's method computes what a convolution is defined to be" begin
    for (width, height, inputs, outputs, images) in (
        (16, 16, 24, 5, 1), (17, 13, 7, 9, 2), (1, 1, 3, 2, 3), (2, 9, 1, 1, 1), (9, 2, 1, 8, 17), (7, 7, 33, 31, 5),
        (33, 6, 25, 24, 1), (65, 34, 2, 3, 2))
        @test winograd_error(width, height, inputs, outputs, images) < 5e-6
    end
end

@testset "Winograd's method pads each side as it is told, and adds no bias where there is none" begin
    for pad in (0, 1, 2, (0, 1, 2, 3), (9, 0, 0, 9), (1, 0, 1, 0))
        @test winograd_error(10, 11, 5, 6, 2; pad=pad) < 5e-6
        @test winograd_error(10, 11, 5, 6, 2; pad=pad, bias=false) < 5e-6
    end
end

@testset "Winograd's method applies the activation to each number once" begin
    @test winograd_error(13, 22, 8, 6, 3; σ=x -> 2x + 1) < 5e-6
end

@testset "the error of Winograd's method does not grow with the channels to more than 1e-5 of the largest number" begin
    for inputs in (64, 256, 512)
        @test winograd_error(8, 8, inputs, 16, 1) < 1e-5
    end
end

@testset "a convolution that uses Winograd's method gives what every other backend gives, call after call" begin
    P = F.PlainLayers
    x, w, b = random_numbers(4, 16, 14, 24, 3), random_numbers(5, 3, 3, 24, 10), random_numbers(6, 10)
    expected = conv_reference(x, w, b; pads=(1, 1, 1, 1)) ./ 50
    file = graph_file((3, 24, 14, 16), ("w" => w ./ 50, "b" => b ./ 50), [conv_line("x,w,b"; pads=(1, 1, 1, 1))])
    for backend in BACKENDS
        model = F.build!(F.read_graph(file), backend)
        for _ in 1:2
            @test F.predict(model, x) ≈ expected rtol=1e-5
        end
    end
    c = P.Conv(w, b; pad=1)
    c(x)
    @test length(c.frequencies) == 36 * 24 * P.panel_columns(10, P.PROCESSOR[])
end

@testset "Winograd's method is used for 3x3 kernels without stride, dilation and groups, of enough channels and pixels" begin
    P = F.PlainLayers
    used(size, images, weight; options...) =
        P.uses_winograd(P.Conv(zeros(Float32, weight...), false; options...), (size..., 1), images)
    @test used((16, 16), 1, (3, 3, 24, 1))
    @test used((7, 7), 4, (3, 3, 64, 64))
    @test !used((7, 7), 3, (3, 3, 64, 64))
    @test !used((9, 9), 4, (3, 3, 64, 64))
    @test !used((16, 16), 1, (3, 3, 16, 64))
    @test !used((16, 16), 1, (3, 5, 24, 1))
    @test !used((16, 16), 1, (3, 3, 24, 2); stride=2)
    @test !used((16, 16), 1, (3, 3, 24, 2); dilation=2)
    @test !used((16, 16), 1, (3, 3, 24, 2); groups=2)
    @test !used((16, 16), 1, (3, 3, 1, 24, 2))
end

@testset "layers whose transformed weights would go beyond the budget keep to im2col, and give the same" begin
    P = F.PlainLayers
    x, w = random_numbers(7, 16, 16, 24, 1), random_numbers(8, 3, 3, 24, 24) ./ 50
    first, second = P.Conv(w, false; pad=1), P.Conv(w, false; pad=1)
    P.FREQUENCY_BUDGET[] = 4 * sizeof(w)
    y, z = first(x), second(x)
    @test (length(first.frequencies), length(second.frequencies)) == (4 * length(w), 0)
    @test y ≈ z rtol=1e-4
    P.limit_frequencies!(10)
    @test P.FREQUENCY_BUDGET[] == 2^28
    second(x)
    @test !isempty(second.frequencies) && P.FREQUENCY_BUDGET[] == 2^28 - 4 * sizeof(w)
    P.FREQUENCY_BUDGET[] = typemax(Int)
end
