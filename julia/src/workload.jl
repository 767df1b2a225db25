# The workload for precompilation: what a worker does from its start to its first answers. Julia keeps the code that it
# compiles for it in the package's cache file.

"Whether this process is writing a package's cache file."
precompiling() = ccall(:jl_generating_output, Cint, ()) == 1

"""
    run_workload(backend) -> Vector{UInt8}

Serve a small model with the layers that image classifiers consist of. Return the bytes of the worker's answers.
"""
function run_workload(backend::Backend)
    worker_options(["--in=3", "--out=4"])
    mktempdir() do folder
        requests, answers, shared = joinpath(folder, "requests"), joinpath(folder, "answers"), joinpath(folder, "shared")
        write(shared, zeros(Float32, 64))
        graph = joinpath(folder, "graph")
        write(graph, workload_graph())
        open(file -> write_requests(Pipe(devnull, file), graph), requests, "w")
        # Use files, because they are IOStreams as the descriptors of a worker are.
        open(requests) do input
            open(shared, "r+") do memory
                open(output -> serve(Pipe(input, output, SharedMemory(memory)), backend), answers, "w")
            end
        end
        # Large enough for Winograd's method, which no convolution of the graph is.
        PlainLayers.Conv(zeros(Float32, 3, 3, 24, 1), false; pad=1)(zeros(Float32, 16, 16, 24, 1))
        PlainLayers.empty_buffers!()
        return read(answers)
    end
end

function write_requests(pipe, graph)
    send(pipe, PING, UInt64(1), UInt8[])
    send(pipe, LOAD, UInt64(2), graph)
    for (id, batch) in enumerate((1, 2))
        send_tensor(pipe, PREDICT, UInt64(2 + id), zeros(Float32, 8, 8, 1, batch))
    end
    send(pipe, PREDICT_SHARED, UInt64(5), UInt8[1, 4, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0])
    send(pipe, STOP, UInt64(6), UInt8[])
end

"The bytes of a graph file with small layers of all common kinds. All weights are zero."
function workload_graph()
    window = "dilations=1,1 strides=1,1"
    text = """
        input x float32 -1,1,8,8
        tensor stem float32 4,1,3,3 0
        tensor depthwise float32 4,1,3,3 192
        tensor pointwise float32 4,4,1,1 384
        tensor head float32 2,4 448
        tensor four float32 4 512
        tensor two float32 2 576
        node Conv in=x,stem,four out=a name=a group=1 pads=1,1,1,1 $window
        node Relu in=a out=b name=b
        node MaxPool in=b out=c name=c ceil_mode=0 kernel_shape=2,2 pads=0,0,0,0 storage_order=0 dilations=1,1 strides=2,2
        node Conv in=c,depthwise,four out=d name=d group=4 pads=1,1,1,1 $window
        node Relu in=d out=e name=e
        node Conv in=e,pointwise,four out=f name=f group=1 pads=0,0,0,0 $window
        node BatchNormalization in=f,four,four,four,four out=g name=g epsilon=1e-05
        node Add in=g,c out=h name=h
        node Relu in=h out=i name=i
        node GlobalAveragePool in=i out=j name=j
        node Flatten in=j out=k name=k axis=1
        node Gemm in=k,head,two out=l name=l alpha=1.0 beta=1.0 transA=0 transB=1
        node Softmax in=l out=y name=y axis=1 coerce=0
        output y
        """
    file = IOBuffer()
    write(file, GRAPH_MAGIC, htol(UInt32(GRAPH_VERSION)), UInt32(0), htol(UInt64(sizeof(text))), text)
    write(file, zeros(UInt8, align_offset(24 + sizeof(text)) - 24 - sizeof(text) + 640))
    return take!(file)
end
