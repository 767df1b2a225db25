# Write graph files, independently of the reader under test.

"The `tensor` line of a constant, given as an array with reversed dimensions."
tensor_line(name, offset, x) = string("tensor ", name, " ", eltype(x) == Int64 ? "int64" : "float32", " ",
                                      ndims(x) == 0 ? "-" : join(reverse(size(x)), ','), " ", offset)

"""
The bytes of a graph file with an input `x` of `shape` (outermost dimension first), constants `name => array`, the lines
of the nodes, and the name of the output.
"""
function graph_file(shape, constants, nodes, output="y")
    lines, data = ["input x float32 $(join(shape, ','))"], UInt8[]
    for (name, array) in constants
        append!(data, zeros(UInt8, mod(-length(data), 64)))
        push!(lines, tensor_line(name, length(data), array))
        append!(data, reinterpret(UInt8, vec(array)))
    end
    append!(lines, nodes)
    push!(lines, "output $output")
    return raw_graph(join(lines, '\n') * '\n', data)
end

"The bytes of a graph file with any text section and tensor data."
function raw_graph(text, data=UInt8[]; magic="FLUXDROP", version=1)
    io = IOBuffer()
    write(io, magic, UInt32(version), UInt32(0), UInt64(sizeof(text)), text)
    write(io, zeros(UInt8, mod(-position(io), 64)), data)
    return take!(io)
end

"""
The result of every backend for `x` and a graph with one `node` line, and of the fast model of Flux's. The node's name is
`n`.
"""
function run_node(line, x, constants...; shape=reverse(size(x)))
    answers = Any[]
    for backend in BACKENDS
        model = F.build!(F.read_graph(graph_file(shape, constants, [line])), backend)
        push!(answers, F.predict(model, x))
        backend.layers === FOUND.flux && backend.device === F.CPU && push!(answers, F.predict(F.fast(model), x))
    end
    return answers
end

"Whether every backend's result is `expected`, up to rounding."
agrees(answers, expected; atol=1f-5) =
    all(y -> size(y) == size(expected) && isapprox(y, expected; atol=atol, rtol=1f-5), answers)

"""
The message of the error of type `E` that `f` throws. If it throws none, `"no error"`; for another type, text that begins
with `another error`.
"""
function message(f, E)
    try
        f()
    catch e
        return e isa E ? e.message : "another error: $(sprint(showerror, e))"
    end
    return "no error"
end
