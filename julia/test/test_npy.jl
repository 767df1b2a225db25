function npy(shape, data; descr="<f4", fortran="False", version=1)
    header = "{'descr': '$descr', 'fortran_order': $fortran, 'shape': ($shape), }"
    io = IOBuffer()
    write(io, b"\x93NUMPY", UInt8(version), 0x00)
    write(io, version == 1 ? UInt16(sizeof(header)) : UInt32(sizeof(header)), header, data)
    return take!(io)
end

"The result of `f` for the path of a file with these bytes."
function with_file(f, bytes)
    path, io = mktemp()
    write(io, bytes)
    close(io)
    try
        return f(path)
    finally
        rm(path)
    end
end

@testset "a .npy file is read with its dimensions reversed" begin
    x = numbers(4, 3, 2)
    @test with_file(F.read_npy, npy("2, 3, 4", x)) == x
    @test with_file(F.read_npy, npy("2, 3, 4", x; version=2)) == x
    @test with_file(F.read_npy, npy("24,", x)) == vec(x)
end

@testset "a .npy file that is not a float32 array in C order is refused with a reason" begin
    x = numbers(4)
    refusal(bytes) = with_file(path -> message(() -> F.read_npy(path), F.UsageError), bytes)
    @test occursin("not a .npy", refusal(b"PNG"))
    @test occursin("version 9", refusal(npy("4,", x; version=9)))
    @test occursin("<f4", refusal(npy("4,", x; descr="<f8")))
    @test occursin("C order", refusal(npy("4,", x; fortran="True")))
    @test occursin("does not fit", refusal(npy("5,", x)))
    @test occursin("no shape", refusal(npy("4,-1", x)))
    @test occursin("impossible", refusal(npy("99999999999999999999", x)))
    @test occursin("within its header", refusal(npy("4,", x)[1:40]))
end
