# The frames of docs/protocol.md: this file holds every constant of the pipe.

const PROTOCOL = 1
const MAGIC = 0x50445846  # "FXDP", little-endian
const MAXIMUM_PAYLOAD = UInt64(2)^30
# A length is believed piece by piece: one that lies costs no more memory than what came of it.
const CHUNK_BYTES = 2^20

"How long a worker that has just answered looks for the next frame before it sleeps, in nanoseconds."
const SPIN_NANOSECONDS = 50_000

const HELLO = UInt16(1)
const LOAD = UInt16(2)
const LOADED = UInt16(3)
const PREDICT = UInt16(4)
const PREDICTION = UInt16(5)
const FAILURE = UInt16(6)
const PING = UInt16(7)
const PONG = UInt16(8)
const STOP = UInt16(9)
const LOAD_NATIVE = UInt16(10)
const PREDICT_SHARED = UInt16(11)

const REQUESTS = (LOAD, PREDICT, PING, STOP, LOAD_NATIVE, PREDICT_SHARED)

"The unsigned number of type `T` at `offset` (from 0) of `bytes`, little-endian."
function little_endian(::Type{T}, bytes, offset) where {T<:Unsigned}
    value = zero(T)
    for i in 1:sizeof(T)
        value |= T(bytes[offset+i]) << (8 * (i - 1))
    end
    return value
end

"""
The worker's end of the pipe: blocking streams, the buffer that every frame reuses, and the memory for large tensors.

`Base.fdio` streams rather than Julia's own: those go through libuv's event loop, which takes
three times as long for a frame of 16 KB.
"""
struct Pipe{I<:IO,O<:IO}
    input::I
    output::O
    payload::Vector{UInt8}
    shared::SharedMemory
end

Pipe(input::IO, output::IO, shared=SharedMemory()) = Pipe(input, output, UInt8[], shared)

"""
    receive!(pipe) -> (kind, id)

Read one frame; its payload is then in `pipe.payload`, until the next call. Throws `EOFError` where
the pipe ends, within a frame too: the daemon is gone either way.

`refuse(id, error)` is called with what breaks the protocol, before the error is thrown: the answer
repeats the id that the frame had.
"""
function receive!(refuse, pipe::Pipe)
    spin_until_readable(pipe.input)
    magic, version, kind = header_field(pipe, UInt32), header_field(pipe, UInt16), header_field(pipe, UInt16)
    id, bytes = header_field(pipe, UInt64), header_field(pipe, UInt64)
    fault(message) = (e = ProtocolError(message); refuse(id, e); throw(e))
    magic == MAGIC || fault("a frame that does not begin with FXDP")
    version == PROTOCOL || fault("a frame of version $version; this worker speaks version $PROTOCOL")
    kind in REQUESTS || fault("a frame of kind $kind is no request")
    bytes <= MAXIMUM_PAYLOAD || fault("a payload of $bytes bytes; at most $MAXIMUM_PAYLOAD are allowed")
    payload = pipe.payload
    received = 0
    while received < bytes
        chunk = min(Int(bytes) - received, max(received, CHUNK_BYTES))
        resize!(payload, received + chunk)
        GC.@preserve payload unsafe_read(pipe.input, pointer(payload, received + 1), UInt(chunk))
        received += chunk
    end
    resize!(payload, Int(bytes))
    return kind, id
end

const POLLIN = 1

"A `struct pollfd` of poll(2)."
struct PollFd
    descriptor::Cint
    events::Cshort
    revents::Cshort
end

"""
    stay_awake(input) -> whether there is something to read

Wait for it no longer than `AWAKE`: to wake a processor that has fallen asleep takes as long as all else that a small
frame needs, and who calls in a loop calls at once.
"""
function spin_until_readable(input::IOStream)
    # fd gives an Int, and since Julia 1.12 a RawFD.
    polled = Ref(PollFd(Base.cconvert(Cint, fd(input)), POLLIN, 0))
    until = time_ns() + SPIN_NANOSECONDS
    while bytesavailable(input) == 0 && ccall(:poll, Cint, (Ref{PollFd}, Culong, Cint), polled, 1, 0) == 0
        time_ns() < until || return false
    end
    return true
end

spin_until_readable(::IO) = true

header_field(pipe, T) = ltoh(read(pipe.input, T))

"Write the header of a frame; the payload and a `flush` must follow."
function begin_frame(output::IO, kind::UInt16, id::UInt64, bytes)
    write(output, htol(MAGIC))
    write(output, htol(UInt16(PROTOCOL)))
    write(output, htol(kind))
    write(output, htol(id))
    write(output, htol(UInt64(bytes)))
    return nothing
end

"Send one frame whose payload is a byte vector or a string."
function send(pipe::Pipe, kind::UInt16, id::UInt64, payload)
    begin_frame(pipe.output, kind, id, sizeof(payload))
    write(pipe.output, payload)
    flush(pipe.output)
    return nothing
end

"`name => value` pairs as the lines of a payload of facts."
facts(pairs::Pair...) = join(string(name, '=', escape_fact(string(value)), '\n') for (name, value) in pairs)

escape_fact(value) = replace(replace(value, '\\' => "\\\\"), '\n' => "\\n")
