# What the engine juliacall calls, in the process of Python. Numbers and strings alone cross over: Python hands in
# the addresses of its arrays, which it keeps alive and unchanged for as long as the call takes.

"The model of the graph file of `count` bytes at `address`."
build_at_address(address, count, backend) = build(read_graph(copy(array_at(UInt8, address, count))), backend)

"What the model makes of the tensor at `address`, whose `shape` is outermost first; the dimensions of the answer are reversed."
predict_at_address(model, address, shape...) = predict(model, array_at(Float32, address, reverse(shape)...))

array_at(T, address, sizes...) = unsafe_wrap(Array, Ptr{T}(UInt(address)), sizes)
