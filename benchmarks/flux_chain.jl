# Time a network, written by hand as a Flux Chain with random weights, and what fast(model) makes of it, in turns. Print the
# median seconds of a call of each.
#
#     julia flux_chain.jl ResNet-18|MobileNetV2 BATCH TURNS

using Flux
include(joinpath(@__DIR__, "..", "julia", "load.jl"))
using .FluxdropWorker: FluxdropWorker, fast

# For what the extension is where FluxdropWorker is no package.
FluxdropWorker.choose_backend("auto", "cpu")

convolution(k, channels, activation=identity; stride=1, groups=1) = Chain(
    Conv((k, k), channels; stride=stride, pad=k ÷ 2, groups=groups, bias=false), BatchNorm(channels[2], activation))

function block((from, to); stride=1)
    body = Chain(convolution(3, from => to, relu; stride=stride), convolution(3, to => to))
    shortcut = from == to && stride == 1 ? identity : convolution(1, from => to; stride=stride)
    return Chain(Parallel(+, body, shortcut), x -> relu.(x))
end

resnet18(labels) = Chain(
    convolution(7, 3 => 64, relu; stride=2), MaxPool((3, 3); stride=2, pad=1),
    block(64 => 64), block(64 => 64),
    block(64 => 128; stride=2), block(128 => 128),
    block(128 => 256; stride=2), block(256 => 256),
    block(256 => 512; stride=2), block(512 => 512),
    GlobalMeanPool(), Flux.flatten, Dense(512 => labels),
)

function inverted_residual((from, to); stride, expansion)
    hidden = from * expansion
    body = Chain(
        (expansion == 1 ? () : (convolution(1, from => hidden, relu6),))...,
        convolution(3, hidden => hidden, relu6; stride=stride, groups=hidden), convolution(1, hidden => to))
    return stride == 1 && from == to ? SkipConnection(body, +) : body
end

function mobilenetv2(labels)
    layers, channels = Any[convolution(3, 3 => 32, relu6; stride=2)], 32
    # Expansion, channels, blocks and the first block's stride (Sandler et al. 2018, table 2).
    for (t, c, n, s) in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)), i in 1:n
        push!(layers, inverted_residual(channels => c; stride=i == 1 ? s : 1, expansion=t))
        channels = c
    end
    return Chain(layers..., convolution(1, 320 => 1280, relu6), GlobalMeanPool(), Flux.flatten, Dense(1280 => labels))
end

function measure(models, x, turns)
    times = [Float64[] for _ in models]
    foreach(model -> (model(x); model(x)), models)
    for _ in 1:turns, (model, taken) in zip(models, times)
        # Until the threads of the other model sleep.
        sleep(0.1)
        append!(taken, [@elapsed(model(x)) for _ in 1:3])
    end
    return [sort(taken)[(end + 1) ÷ 2] for taken in times]
end

networks = Dict("ResNet-18" => resnet18, "MobileNetV2" => mobilenetv2)
batch, turns = parse.(Int, ARGS[2:3])
chain = Flux.testmode!(networks[ARGS[1]](5))
foreach(println, measure((chain, fast(chain)), randn(Float32, 224, 224, 3, batch), turns))
