# Functions along one axis.

"`f(x; dims)` along one of ONNX's axes: softmax and its like."
struct AlongAxis{F}
    f::F
    axis::Int
end

(a::AlongAxis)(x) = a.f(x; dims=dimension(x, a.axis))

Base.show(io::IO, a::AlongAxis) = print(io, "AlongAxis(", a.f, ", ", a.axis, ")")
