# Times `predict` without the pipe: prints the median seconds of a call, and by how many bytes the second half of
# the calls raised the most memory that the process ever had.
#
#     julia predict.jl MODEL.graph TENSOR.npy CALLS

# As a worker loads it: code that Julia compiled ahead is not the same in all places.
include(joinpath(@__DIR__, "..", "julia", "load.jl"))
using .FluxdropWorker: build, choose_backend, predict, read_graph, read_npy

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
println(join(measure(build(read_graph(read(graph)), backend), read_npy(tensor), parse(Int, calls)), ' '))
