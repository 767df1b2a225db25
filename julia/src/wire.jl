# Frames of the pipe (docs/protocol.md), and every constant of the protocol.

const PROTOCOL = 1
const FRAME_MAGIC = 0x50445846  # "FXDP", little-endian
const MAXIMUM_PAYLOAD = UInt64(2)^30
# The length in a header is not trusted: memory is allocated in chunks, as payload arrives.
const CHUNK_BYTES = 2^20

"How long the worker polls for the next request, in nanoseconds, before it blocks."
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

"Read an unsigned, little-endian number of type `T` at `offset`, from 0, of `bytes`."
function little_endian(::Type{T}, bytes, offset) where {T<:Unsigned}
    value = zero(T)
    for i in 1:sizeof(T)
        value |= T(bytes[offset+i]) << (8 * (i - 1))
    end
    return value
end

"""
The worker's end of the pipe: its two streams, the payload of the last frame that was received, and the shared memory.
The payload's buffer is reused for every frame.

The streams are made with `Base.fdio`, which reads and writes with system calls that block. Julia's own pipes
(`Base.PipeEndpoint`) go through libuv's event loop, and took three times as long for a frame of 16 KB. To see it, time
PING round trips with `Base.open(RawFD(fd))` in place of `fdio` in `open_pipe`.
"""
struct Pipe{I<:IO,O<:IO}
    input::I
    output::O
    payload::Vector{UInt8}
    shared::SharedMemory
end

Pipe(input::IO, output::IO, shared=SharedMemory()) = Pipe(input, output, UInt8[], shared)

"""
    receive!(refuse, pipe) -> (kind, id)

Read one frame. Its payload is in `pipe.payload` until the next call.

If the frame breaks the protocol, call `refuse(id, error)` with the id in its header, then throw the
[`ProtocolError`](@ref). Throws `EOFError` if the pipe ends, in the middle of a frame too.
"""
function receive!(refuse, pipe::Pipe)
    spin_until_readable(pipe.input)
    magic, version, kind = header_field(pipe, UInt32), header_field(pipe, UInt16), header_field(pipe, UInt16)
    id, bytes = header_field(pipe, UInt64), header_field(pipe, UInt64)
    fault(message) = (e = ProtocolError(message); refuse(id, e); throw(e))
    magic == FRAME_MAGIC || fault("a frame that does not begin with FXDP")
    version == PROTOCOL || fault("a frame of version $version; this worker speaks version $PROTOCOL")
    kind in REQUESTS || fault("a frame of kind $kind is not a request")
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

"`struct pollfd` of poll(2)."
struct PollFd
    descriptor::Cint
    events::Cshort
    revents::Cshort
end

"""
    spin_until_readable(input) -> Bool

Poll until there is something to read or the stream has ended, for at most `SPIN_NANOSECONDS`. Return whether there is.
Reads nothing.

A client in a loop sends its next request at once. To wake a process that sleeps in read(2) takes as long as all else
that a small frame needs.
"""
function spin_until_readable(input::IOStream)
    # fd returns a RawFD since Julia 1.12 (JuliaLang/julia#55080), and an Int before.
    polled = Ref(PollFd(Base.cconvert(Cint, fd(input)), POLLIN, 0))
    until = time_ns() + SPIN_NANOSECONDS
    while bytesavailable(input) == 0 && ccall(:poll, Cint, (Ref{PollFd}, Culong, Cint), polled, 1, 0) == 0
        time_ns() < until || return false
    end
    return true
end

spin_until_readable(::IO) = true

header_field(pipe, T) = ltoh(read(pipe.input, T))

"""
    begin_frame(output, kind, id, bytes)

Write the header of a frame with a payload of `bytes` bytes. The caller writes the payload and flushes.
"""
function begin_frame(output::IO, kind::UInt16, id::UInt64, bytes)
    write(output, htol(FRAME_MAGIC))
    write(output, htol(UInt16(PROTOCOL)))
    write(output, htol(kind))
    write(output, htol(id))
    write(output, htol(UInt64(bytes)))
    return nothing
end

"""
    send(pipe, kind, id, payload)

Send one frame. The payload is a byte vector or a string. Flushes the pipe.
"""
function send(pipe::Pipe, kind::UInt16, id::UInt64, payload)
    begin_frame(pipe.output, kind, id, sizeof(payload))
    write(pipe.output, payload)
    flush(pipe.output)
    return nothing
end

"""
    facts(pairs...) -> String

Encode `name => value` pairs as the lines `name=value` of a payload. Backslashes and line feeds in values are escaped.
"""
facts(pairs::Pair...) = join(string(name, '=', escape_fact(string(value)), '\n') for (name, value) in pairs)

escape_fact(value) = replace(replace(value, '\\' => "\\\\"), '\n' => "\\n")
