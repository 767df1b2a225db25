# The errors of this package. Each has the name of the FAILURE kind that the daemon receives (docs/protocol.md).

"An error with a message of one sentence. [`kind`](@ref) is its name in the protocol."
abstract type WorkerError <: Exception end

"The graph file is damaged or breaks the format, or a flux_model.jl cannot be loaded."
struct GraphError <: WorkerError
    message::String
end

"A node of the graph cannot be built."
struct OperatorError <: WorkerError
    message::String
end

"A tensor has the wrong shape or element type, or no model is loaded."
struct InputError <: WorkerError
    message::String
end

"The forward pass failed."
struct ComputeError <: WorkerError
    message::String
end

"Bytes on the pipe break the protocol. The bytes after them cannot be interpreted, so the worker has to end."
struct ProtocolError <: WorkerError
    message::String
end

"A command line is wrong, or a file named in it is not of the expected format."
struct UsageError <: WorkerError
    message::String
end

"Flux or a GPU was demanded, and is not available."
struct BackendError <: WorkerError
    message::String
end

"""
    kind(error) -> String

The FAILURE kind that the protocol has for an error.
"""
kind(::GraphError) = "graph"
kind(::OperatorError) = "operator"
kind(::InputError) = "input"
kind(::ComputeError) = "compute"
kind(::ProtocolError) = "protocol"
kind(::BackendError) = "julia"  # in Python's process only: a worker exits instead
kind(::Exception) = "compute"

Base.showerror(io::IO, e::WorkerError) = print(io, e.message)

"""
    reason(error) -> String

The error's message, of at most about 600 characters: some of Julia's messages print whole arrays.
"""
function reason(e)
    words = e isa OutOfMemoryError ? "out of memory" : sprint(showerror, e)
    length(words) > 600 ? first(words, 600) * " ..." : words
end

"""
    one_line(error) -> String

The first line of the error's message. Of a `LoadError`, the line number and message of the error inside, without the path.
"""
one_line(e) = String(first(split(reason(e), '\n')))
one_line(e::LoadError) = e.error isa LoadError ? one_line(e.error) : "line $(e.line): $(one_line(e.error))"

"""
    exit_on_failure(f) -> f()

Call `f`. If it throws a [`WorkerError`](@ref) or a `SystemError`, print the message as one line on stderr and exit with
code 2, or 3 for a [`BackendError`](@ref). Other errors are rethrown.
"""
function exit_on_failure(f)
    try
        return f()
    catch e
        e isa Union{WorkerError,SystemError} || rethrow()
        println(stderr, "fluxdrop: ", replace(reason(e), '\n' => ' '))
        exit(e isa BackendError ? 3 : 2)
    end
end
