# The functions that the engine juliacall calls, in Python's process. Arguments are numbers and strings: an array is given
# by its address. Python keeps it alive and unchanged until the call returns.

"Build the model of the graph file `path`. Throws what [`read_graph`](@ref) and [`build`](@ref) throw."
build_file(path, backend) = build!(read_graph(path), backend)

"""
    predict_at_address(model, address, shape...) -> Array{Float32}

Run the model on the row-major Float32 tensor at `address`, whose `shape` is given outermost dimension first. The
result has its dimensions reversed. Throws what [`predict`](@ref) throws.
"""
predict_at_address(model, address, shape...) = predict(model, array_at(Float32, address, reverse(shape)...))

"An array of `sizes`, in Julia's order, in the memory at `address`. Julia does not free that memory."
array_at(T, address, sizes...) = unsafe_wrap(Array, Ptr{T}(UInt(address)), sizes)
