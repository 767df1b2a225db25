# Memory shared with the daemon. A large tensor is written there instead of sent through the pipe.

using Mmap: mmap

"""
The memory. `file` is the anonymous file that both processes map, or `nothing` if they share none; `mapped` is the part
of it that is mapped so far.
"""
mutable struct SharedMemory
    file::Union{IOStream,Nothing}
    mapped::Vector{UInt8}
end

SharedMemory(file=nothing) = SharedMemory(file, UInt8[])

"""
    map_at_least!(shared, bytes) -> Vector{UInt8}

Return the memory, of at least `bytes` bytes, and map it first if needed. Throws [`InputError`](@ref) if it is smaller.
"""
function map_at_least!(shared::SharedMemory, bytes)
    length(shared.mapped) >= bytes && return shared.mapped
    room = shared.file === nothing ? 0 : filesize(shared.file)
    bytes <= room || throw(InputError("the tensor has $bytes bytes, and the shared memory $room"))
    return shared.mapped = mmap(shared.file, Vector{UInt8}, room, 0)
end
