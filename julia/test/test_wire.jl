@testset "a frame has the bytes of the protocol" begin
    output = IOBuffer()
    F.send(F.Pipe(IOBuffer(), output), F.PONG, UInt64(0x0102030405060708), UInt8[0xaa, 0xbb])
    expected = [b"FXDP"; 0x01; 0x00; 0x08; 0x00; 0x08; 0x07; 0x06; 0x05; 0x04; 0x03; 0x02; 0x01;
                0x02; zeros(UInt8, 7); 0xaa; 0xbb]
    @test take!(output) == expected
end

@testset "backslashes and line feeds in facts are escaped" begin
    @test F.facts("a" => "x\\y\nz", "b" => 1) == "a=x\\\\y\\nz\nb=1\n"
end

@testset "a tensor is read with its dimensions reversed and without a copy" begin
    payload = [0x01; 0x02; 0x00; 0x00; reinterpret(UInt8, UInt32[2, 3]); reinterpret(UInt8, Float32[1, 2, 3, 4, 5, 6])]
    GC.@preserve payload begin
        x = F.tensor(payload)
        @test x == Float32[1 4; 2 5; 3 6]
        @test pointer(x) == Ptr{Float32}(pointer(payload, 13))
    end
end

@testset "a sent tensor can be read again" begin
    output, x = IOBuffer(), numbers(4, 3, 2)
    F.send_tensor(F.Pipe(IOBuffer(), output), F.PREDICTION, UInt64(7), x)
    payload = take!(output)[25:end]
    @test GC.@preserve(payload, F.tensor(payload) == x)
    @test reinterpret(UInt32, payload[5:16]) == [2, 3, 4]
end

@testset "a damaged tensor throws InputError with the reason" begin
    good = [0x01; 0x01; 0x00; 0x00; reinterpret(UInt8, UInt32[1]); zeros(UInt8, 4)]
    wrong(bytes) = message(() -> F.tensor(bytes), F.InputError)
    @test occursin("head", wrong(good[1:3]))
    @test occursin("head", wrong(good[1:6]))
    @test occursin("bytes", wrong(good[1:end-1]))
    @test occursin("element type 2", wrong([0x02; good[2:end]]))
    @test occursin("at most 8", wrong([0x01; 0x09; good[3:end]]))
    @test occursin("bytes", wrong([0x01; 0x08; 0x00; 0x00; fill(0xff, 32); zeros(UInt8, 4)]))
end

@testset "spin_until_readable notices data and the end of the stream, and reads nothing" begin
    ends = zeros(Cint, 2)
    @test ccall(:pipe, Cint, (Ptr{Cint},), ends) == 0
    input, output = fdio(Int(ends[1]), true), fdio(Int(ends[2]), true)
    @test !F.spin_until_readable(input)
    write(output, "ab")
    flush(output)
    @test F.spin_until_readable(input)
    @test read(input, Char) == 'a'
    @test F.spin_until_readable(input)
    @test read(input, Char) == 'b'
    @test !F.spin_until_readable(input)
    close(output)
    @test F.spin_until_readable(input) && eof(input)
    close(input)
end
