# A writer of graph files, independent of the reader under test.

"A constant, given with Julia's (reversed) dimensions."
tensor_line(name, offset, x) = string("tensor ", name, " ", eltype(x) == Int64 ? "int64" : "float32", " ",
                                      ndims(x) == 0 ? "-" : join(reverse(size(x)), ','), " ", offset)

"""
The bytes of a graph file: an input `x` of `shape` (outermost first), the constants `name => array`, the
lines of the nodes, and the output.
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

"A graph file of any header text and data."
function raw_graph(text, data=UInt8[]; magic="FLUXDROP", version=1)
    io = IOBuffer()
    write(io, magic, UInt32(version), UInt32(0), UInt64(sizeof(text)), text)
    write(io, zeros(UInt8, mod(-position(io), 64)), data)
    return take!(io)
end

"What each backend makes of `x`: the graph has the one `node` line, whose name is `n`."
run_node(line, x, constants...; shape=reverse(size(x))) =
    [F.predict(F.build(F.read_graph(graph_file(shape, constants, [line])), backend), x) for backend in BACKENDS]

"Whether every backend answers `expected`, up to rounding."
agrees(answers, expected; atol=1f-5) =
    all(y -> size(y) == size(expected) && isapprox(y, expected; atol=atol, rtol=1f-5), answers)

"The message of the error that `f` throws, which has to be of type `E`."
function message(f, E)
    try
        f()
    catch e
        return e isa E ? e.message : "another error: $(sprint(showerror, e))"
    end
    return "no error"
end
