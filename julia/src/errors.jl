# What can go wrong, each named after the FAILURE kind that the daemon is told (docs/protocol.md).

"A failure that is answered in one sentence; [`kind`](@ref) is its name on the wire."
abstract type WorkerError <: Exception end

"The graph file is damaged or breaks the format, or a flux_model.jl cannot be loaded."
struct GraphError <: WorkerError
    message::String
end

"A node that the worker cannot build."
struct OperatorError <: WorkerError
    message::String
end

"A tensor of the wrong shape or type, or no model to give it to."
struct InputError <: WorkerError
    message::String
end

"The forward pass failed."
struct ComputeError <: WorkerError
    message::String
end

"Bytes that are not the protocol; nothing that follows them can be trusted."
struct ProtocolError <: WorkerError
    message::String
end

"A command line that makes no sense, or a file that is not what it should be."
struct UsageError <: WorkerError
    message::String
end

"Flux or a GPU was demanded, and cannot be had."
struct BackendError <: WorkerError
    message::String
end

kind(::GraphError) = "graph"
kind(::OperatorError) = "operator"
kind(::InputError) = "input"
kind(::ComputeError) = "compute"
kind(::ProtocolError) = "protocol"
kind(::BackendError) = "julia"  # in the process of Python only: a worker ends with it
kind(::Exception) = "compute"

Base.showerror(io::IO, e::WorkerError) = print(io, e.message)

"The exception in words, shortened: some of Julia's messages print whole arrays."
function reason(e)
    words = e isa OutOfMemoryError ? "out of memory" : sprint(showerror, e)
    length(words) > 600 ? first(words, 600) * " ..." : words
end

"The same in one line, without the file around what went wrong in it."
one_line(e) = String(first(split(reason(e), '\n')))
one_line(e::LoadError) = e.error isa LoadError ? one_line(e.error) : "line $(e.line): $(one_line(e.error))"

"""
    exit_on_failure(f) -> f()

For the two scripts: a failure becomes one line on stderr and an exit code (2, or 3 where Flux or a
GPU is missing) instead of a stack trace.
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
