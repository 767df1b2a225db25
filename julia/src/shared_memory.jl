# Memory that the daemon shares with the worker: a large tensor written there need not go through the pipe.

using Mmap: mmap

"The `file` that the memory is, for both processes, and what this one has `mapped` of it so far."
mutable struct SharedMemory
    file::Union{IOStream,Nothing}
    mapped::Vector{UInt8}
end

SharedMemory(file=nothing) = SharedMemory(file, UInt8[])

"The memory, of which there are at least `bytes`. Throws [`InputError`](@ref) where there are fewer."
function map_at_least!(shared::SharedMemory, bytes)
    length(shared.mapped) >= bytes && return shared.mapped
    room = shared.file === nothing ? 0 : filesize(shared.file)
    bytes <= room || throw(InputError("the tensor has $bytes bytes, and the shared memory $room"))
    return shared.mapped = mmap(shared.file, Vector{UInt8}, room, 0)
end
