# Time ResNet-18, written by hand as a Flux Chain with random weights. Print the median seconds of a call.
#
#     julia flux_chain.jl BATCH CALLS

using Flux

convolution(k, channels, activation=identity; stride=1) =
    Chain(Conv((k, k), channels; stride=stride, pad=k ÷ 2, bias=false), BatchNorm(channels[2], activation))

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

function measure(model, x, calls)
    model(x)
    return sort([@elapsed(model(x)) for _ in 1:calls])[(calls + 1) ÷ 2]
end

batch, calls = parse.(Int, ARGS)
println(measure(Flux.testmode!(resnet18(5)), randn(Float32, 224, 224, 3, batch), calls))
