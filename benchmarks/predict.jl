# Time `predict` without the pipe. Print the median seconds of a call, and the bytes by which the peak memory of the process
# grew during the second half of the calls.
#
#     julia predict.jl MODEL.graph TENSOR.npy CALLS

# Load the package as a worker does: precompiled code can be slower than code compiled now (JuliaLang/julia#35972).
include(joinpath(@__DIR__, "..", "julia", "load.jl"))
using .FluxdropWorker: build!, choose_backend, predict, read_graph, read_npy

function measure(model, x, calls)
    predict(model, x)
    times = Float64[]
    half = 0
    for i in 1:calls
        i == calls ÷ 2 + 1 && (half = Sys.maxrss())
        push!(times, @elapsed predict(model, x))
    end
    return sort(times)[(calls + 1) ÷ 2], Int(Sys.maxrss() - half)
end

graph, tensor, calls = ARGS
backend = choose_backend("plain")
println(join(measure(build!(read_graph(graph), backend), read_npy(tensor), parse(Int, calls)), ' '))
