# The reader of graph files (docs/protocol.md). Files are not trusted: every count, offset and name is checked before
# it is used.

const GRAPH_MAGIC = "FLUXDROP"
const GRAPH_VERSION = 1
const ALIGNMENT = 64

"""
One node of the graph. `inputs` and `outputs` are names of values; `"-"` is an optional one that is absent. Attribute
values are lists of strings, which [`ints`](@ref), `int`, `float` and `text` parse.
"""
struct Node
    operator::String
    name::String
    inputs::Vector{String}
    outputs::Vector{String}
    attributes::Dict{String,Vector{String}}
end

"The node's name and operator, as error messages have them. A node without a name has that of its first output."
label(node::Node) = "node $(isempty(node.name) ? node.outputs[1] : node.name) ($(node.operator))"

"""
A graph. `input` is the name of its input and `shape` that input's shape, outermost dimension first, with -1 for any
size. `constants` are arrays with reversed dimensions, by name. `nodes` are in execution order. `output` is the name of
the value that the graph computes.
"""
struct Graph
    input::String
    shape::Vector{Int}
    constants::Dict{String,Any}
    nodes::Vector{Node}
    output::String
end

"""
    read_graph(path) -> Graph
    read_graph(bytes) -> Graph

Read a graph file. Its tensors are read one by one, so no second copy of them is in memory. Throws [`GraphError`](@ref) with
the number of the line at fault, or if there is no such file.
"""
read_graph(path::AbstractString) = reading(file -> read_graph(file, filesize(file)), path)
read_graph(bytes::Vector{UInt8}) = read_graph(IOBuffer(bytes), length(bytes))

function read_graph(@nospecialize(file::IO), size::Int)
    text, data_offset = split_graph(file, size)
    reader = GraphReader(file, data_offset, max(0, size - data_offset))
    for (number, line) in enumerate(split(text, '\n'))
        isempty(line) && continue
        try
            read_statement!(reader, split(line, ' '))
        catch e
            e isa GraphError || rethrow()
            throw(GraphError("line $number: $(e.message)"))
        end
    end
    reader.input === nothing && throw(GraphError("the graph has no input"))
    reader.output === nothing && throw(GraphError("the graph has no output"))
    return Graph(reader.input, reader.shape, reader.constants, reader.nodes, reader.output)
end

"Return the SHA-256 of a graph file, in hex. Throws [`GraphError`](@ref) if it cannot be read."
graph_digest(path) = bytes2hex(reading(sha256, path))

"Call `f` with the file `path`, open. Throws [`GraphError`](@ref) if it cannot be read."
function reading(@nospecialize(f), path)
    try
        return open(f, path)
    catch e
        # ArgumentError: a NUL in the path.
        e isa Union{SystemError,EOFError,ArgumentError} || rethrow()
        throw(GraphError("the graph file cannot be read: $(one_line(e))"))
    end
end

"""
    split_graph(file, size) -> (text, data_offset)

Check the header of the `file` of `size` bytes. Return its text section and the offset, from 0, of its tensor data. Throws
[`GraphError`](@ref).
"""
function split_graph(file, size)
    size >= 24 || throw(GraphError("a graph file has at least 24 bytes, this one $size"))
    head = read!(file, Vector{UInt8}(undef, 24))
    String(head[1:8]) == GRAPH_MAGIC || throw(GraphError("a graph file begins with FLUXDROP, this one does not"))
    version = little_endian(UInt32, head, 8)
    version == GRAPH_VERSION ||
        throw(GraphError("the graph file has version $version; this worker reads version $GRAPH_VERSION"))
    little_endian(UInt32, head, 12) == 0 || throw(GraphError("bytes 12 to 15 are not zero"))
    text_bytes = little_endian(UInt64, head, 16)
    text_bytes <= size - 24 || throw(GraphError("the header text goes past the end of the file"))
    text = String(read!(file, Vector{UInt8}(undef, Int(text_bytes))))
    isascii(text) || throw(GraphError("the header text has characters outside ASCII"))
    return text, align_offset(24 + Int(text_bytes))
end

"The least multiple of `ALIGNMENT` that is not below `offset`."
align_offset(offset) = cld(offset, ALIGNMENT) * ALIGNMENT

"""
The state of the reader. `data_offset` is where the `data_bytes` of tensor data begin in `file`; `budget` is how many bytes
the remaining tensors may have; `known` holds the names of all values defined so far.
"""
mutable struct GraphReader
    file::IO
    data_offset::Int
    data_bytes::Int
    budget::Int  # tensors of more bytes than the file has would let a short header demand any amount of memory
    input::Union{String,Nothing}
    shape::Vector{Int}
    constants::Dict{String,Any}
    nodes::Vector{Node}
    output::Union{String,Nothing}
    known::Set{String}
end

GraphReader(file, data_offset, data_bytes) = GraphReader(
    file, data_offset, data_bytes, data_bytes, nothing, Int[], Dict{String,Any}(), Node[], nothing, Set{String}())

"Read one statement of the text section, split at its spaces. Throws [`GraphError`](@ref), as do all functions below."
function read_statement!(reader::GraphReader, fields)
    keyword = fields[1]
    if keyword == "node"
        read_node!(reader, fields)
    elseif keyword == "tensor"
        read_tensor!(reader, fields)
    elseif keyword == "input"
        expect_fields(fields, 4)
        reader.input === nothing || throw(GraphError("a second input"))
        fields[3] == "float32" || throw(GraphError("the input has type $(fields[3]); only float32 is known"))
        reader.shape = parse_shape(fields[4], -1)
        reader.input = define!(reader, fields[2])
    elseif keyword == "output"
        expect_fields(fields, 2)
        reader.output === nothing || throw(GraphError("a second output"))
        reader.output = check_known(reader, percent_decode(fields[2]))
    else
        throw(GraphError("unknown statement '$keyword'"))
    end
    return nothing
end

"Check that a statement has `count` fields, its keyword included."
expect_fields(fields, count) = length(fields) == count ||
    throw(GraphError("'$(fields[1])' takes $(count - 1) fields, this has $(length(fields) - 1)"))

"Add a value, given by its encoded name, to the known ones. Return the decoded name."
function define!(reader, field)
    name = percent_decode(field)
    name in ("", "-") && throw(GraphError("'$name' is not a name for a value"))
    name in reader.known && throw(GraphError("'$name' is defined twice"))
    push!(reader.known, name)
    return name
end

"Return `name` if it is a known value's."
check_known(reader, name) = name in reader.known ? name : throw(GraphError("'$name' is used before it is defined"))

"""
Parse a comma-separated shape, outermost dimension first. Each size is at least `minimum_size`; `-` is a scalar's
shape.
"""
function parse_shape(field, minimum_size)
    field == "-" && return Int[]
    sizes = map(parse_int, split(field, ','))
    length(sizes) <= MAXIMUM_RANK || throw(GraphError("a shape of $(length(sizes)) dimensions"))
    all(n -> minimum_size <= n <= typemax(Int32), sizes) || throw(GraphError("the shape $field is impossible"))
    return sizes
end

function parse_int(field)
    value = tryparse(Int, field)
    return value === nothing ? throw(GraphError("'$field' is not a whole number")) : value
end

function read_tensor!(reader, fields)
    expect_fields(fields, 5)
    sizes = parse_shape(fields[4], 0)
    offset = parse_int(fields[5])
    T = fields[3] == "float32" ? Float32 : fields[3] == "int64" ? Int64 :
        throw(GraphError("the tensor has type $(fields[3]); float32 and int64 are known"))
    bytes = byte_count(sizes, sizeof(T))
    offset >= 0 && offset % ALIGNMENT == 0 || throw(GraphError("the offset $offset is not a multiple of $ALIGNMENT"))
    bytes !== nothing && bytes <= reader.budget && offset <= reader.data_bytes - bytes ||
        throw(GraphError("the tensor goes past the end of the file"))
    reader.budget -= bytes
    array = Array{T}(undef, Tuple(reverse(sizes)))
    seek(reader.file, reader.data_offset + offset)
    bytes > 0 && GC.@preserve array unsafe_read(reader.file, Ptr{UInt8}(pointer(array)), UInt(bytes))
    reader.constants[define!(reader, fields[2])] = array
    return nothing
end

function read_node!(reader, fields)
    length(fields) >= 5 || throw(GraphError("'node' takes an operator, in, out and name"))
    inputs = split_list(value_of(fields[3], "in"))
    outputs = split_list(value_of(fields[4], "out"))
    isempty(outputs) && throw(GraphError("a node without outputs"))
    attributes = Dict{String,Vector{String}}()
    for field in fields[6:end]
        name, value = key_and_value(field)
        haskey(attributes, name) && throw(GraphError("the attribute '$name' is given twice"))
        attributes[name] = split_list(value)
    end
    foreach(name -> name == "-" || check_known(reader, name), inputs)
    foreach(name -> name == "-" || define!(reader, name), split(value_of(fields[4], "out"), ','))
    push!(reader.nodes, Node(percent_decode(fields[2]), percent_decode(value_of(fields[5], "name")), inputs, outputs, attributes))
    return nothing
end

"Return the part after `=` of a field `key=value`, still encoded. The key has to be `key`."
function value_of(field, key)
    name, value = key_and_value(field)
    name == key || throw(GraphError("'$key=' is expected where '$field' stands"))
    return value
end

function key_and_value(field)
    equals = findfirst('=', field)
    equals === nothing && throw(GraphError("'$field' has no '='"))
    return percent_decode(SubString(field, 1, equals - 1)), SubString(field, equals + 1)
end

"Split at commas and decode each item."
split_list(value) = isempty(value) ? String[] : String[percent_decode(word) for word in split(value, ',')]

"""
    percent_decode(word) -> String

Decode percent-encoded UTF-8. Throws [`GraphError`](@ref).
"""
percent_decode(word) = '%' in word ? percent_decode_bytes(word) : String(word)

"""
The general case of [`percent_decode`](@ref). It is a function of its own, not inlined, so that Julia compiles it only
if a name needs it.
"""
@noinline function percent_decode_bytes(word)
    raw = codeunits(word)
    decoded = UInt8[]
    i = 1
    while i <= length(raw)
        if raw[i] == UInt8('%')
            byte = i + 2 <= length(raw) ? tryparse(UInt8, String(raw[i+1:i+2]), base=16) : nothing
            byte === nothing && throw(GraphError("'$word' has a bad percent-encoding"))
            push!(decoded, byte)
            i += 3
        else
            push!(decoded, raw[i])
            i += 1
        end
    end
    text = String(decoded)
    return isvalid(text) ? text : throw(GraphError("'$word' is not UTF-8"))
end
