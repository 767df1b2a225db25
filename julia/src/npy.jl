# A reader of NumPy's .npy files of little-endian float32 in C order, which the daemon writes to `preprocessed_images/`.

"""
    read_npy(path) -> Array{Float32}

Read a .npy file of version 1 or 2 as an array with its dimensions reversed. Throws [`UsageError`](@ref) if it is of
another version or element type, in Fortran order, or damaged.
"""
function read_npy(path)
    bytes = read(path)
    refuse(message) = throw(UsageError("$path: $message"))
    length(bytes) >= 12 && view(bytes, 1:6) == b"\x93NUMPY" || refuse("not a .npy file")
    version_2 = bytes[7] == 2
    version_2 || bytes[7] == 1 || refuse(".npy version $(bytes[7]) is not known")
    start = version_2 ? 12 : 10
    header_bytes = Int(version_2 ? little_endian(UInt32, bytes, 8) : little_endian(UInt16, bytes, 8))
    start + header_bytes <= length(bytes) || refuse("the file ends within its header")
    header = String(bytes[start+1:start+header_bytes])
    occursin(r"'descr':\s*'<f4'", header) || refuse("the elements are not '<f4' (little-endian float32)")
    occursin(r"'fortran_order':\s*False", header) || refuse("the array is not in C order")
    found = match(r"'shape':\s*\(([0-9, ]*)\)", header)
    found === nothing && refuse("the header has no shape")
    shape = map(n -> tryparse(Int, strip(n)), split(found.captures[1], ',', keepempty=false))
    (nothing in shape || length(shape) > MAXIMUM_RANK) && refuse("the shape ($(found.captures[1])) is impossible")
    count = byte_count(shape, sizeof(Float32))
    count == length(bytes) - start - header_bytes ||
        refuse("shape $(shape_text(shape)) does not fit the $(length(bytes) - start - header_bytes) bytes of data")
    array = Array{Float32}(undef, Tuple(reverse(shape)))
    copyto!(vec(array), reinterpret(Float32, bytes[start+header_bytes+1:end]))
    return array
end
