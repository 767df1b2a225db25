# Tensors as bytes. The bytes of a row-major (N, C, H, W) tensor are those of a column-major (W, H, C, N) array, so
# nothing is transposed. Axis `a` of a tensor of rank `r` is dimension `r - a` in Julia.

const FLOAT32 = 0x01
const MAXIMUM_RANK = 8

"""
    tensor(payload) -> Array{Float32}

The tensor in the payload of PREDICT, with its dimensions reversed: (W, H, C, N). Throws [`InputError`](@ref).

The array shares memory with `payload`. The caller has to keep `payload` alive (`GC.@preserve`) and unchanged while it
uses the array.
"""
function tensor(payload::Vector{UInt8})
    shape, head, bytes = tensor_head(payload)
    bytes == length(payload) - head ||
        throw(InputError("a tensor of shape $(shape_text(shape)) does not have $(length(payload) - head) bytes"))
    return unsafe_wrap(Array, Ptr{Float32}(pointer(payload, head + 1)), Tuple(reverse(shape)))
end

"""
    shared_tensor(payload, shared) -> Array{Float32}

The tensor whose head is the payload of PREDICT_SHARED and whose elements are in the `shared` memory. The array shares
that memory, as in [`tensor`](@ref). Throws [`InputError`](@ref).
"""
function shared_tensor(payload::Vector{UInt8}, shared::SharedMemory)
    shape, head, bytes = tensor_head(payload)
    head == length(payload) || throw(InputError("a shared tensor's head of $head bytes comes with $(length(payload))"))
    bytes === nothing && throw(InputError("there is no tensor of shape $(shape_text(shape))"))
    return unsafe_wrap(Array, Ptr{Float32}(pointer(map_at_least!(shared, bytes))), Tuple(reverse(shape)))
end

"""
    tensor_head(payload) -> (shape, head, bytes)

Parse the head of a tensor: the shape, outermost dimension first, the size of the head in bytes, and that of the elements
as [`byte_count`](@ref) returns it. Throws [`InputError`](@ref).
"""
function tensor_head(payload)
    length(payload) >= 4 || throw(InputError("the tensor ends within its head"))
    payload[1] == FLOAT32 || throw(InputError("the tensor has element type $(payload[1]); only 1 (float32) is known"))
    rank = Int(payload[2])
    rank <= MAXIMUM_RANK || throw(InputError("the tensor has $rank dimensions; at most $MAXIMUM_RANK are allowed"))
    head = 4 + 4rank
    length(payload) >= head || throw(InputError("the tensor ends within its head"))
    shape = [Int(little_endian(UInt32, payload, 4i)) for i in 1:rank]
    return shape, head, byte_count(shape, sizeof(Float32))
end

"""
    byte_count(shape, element)

The size in bytes of a tensor whose elements have `element` bytes each. `nothing` if a size is negative or the product
overflows: shapes come from outside.
"""
function byte_count(shape, element)
    total = element
    for n in shape
        n < 0 && return nothing
        total, overflow = Base.Checked.mul_with_overflow(total, n)
        overflow && return nothing
    end
    return total
end

"A shape as text, as in `2×1×64×64`. It is printed in the order in which it is given."
shape_text(shape) = isempty(shape) ? "scalar" : join(shape, '×')

"The shape of a Julia array as the daemon sees it: outermost dimension first."
row_major_shape(x) = collect(reverse(size(x)))

"""
    send_tensor(pipe, kind, id, x::Array{Float32})

Send a frame whose payload is `x` as a tensor, its dimensions reversed. Flushes the pipe.
"""
function send_tensor(pipe::Pipe, kind::UInt16, id::UInt64, x::Array{Float32})
    output = pipe.output
    begin_frame(output, kind, id, 4 + 4ndims(x) + sizeof(x))
    write(output, FLOAT32, UInt8(ndims(x)), UInt16(0))
    for n in reverse(size(x))
        write(output, htol(UInt32(n)))
    end
    write(output, x)
    flush(output)
    return nothing
end
