# SpaceToDepth and DepthToSpace: blocks of `b` by `b` pixels become channels, and channels become blocks.

export DepthToSpace, SpaceToDepth

"""
ONNX's SpaceToDepth: (W, H, C, N) to (W / b, H / b, C * b^2, N). In the index of a new channel the old channel is outermost
with `crd` (mode CRD), and innermost without (DCR). Throws `DimensionMismatch` if the size does not divide by `b`.
"""
struct SpaceToDepth
    b::Int
    crd::Bool
end

function (s::SpaceToDepth)(x)
    w, h, c, n = plane_size(x)
    w % s.b == h % s.b == 0 || throw(DimensionMismatch("$w by $h pixels do not divide into blocks of $(s.b)"))
    parts = reshape(x, s.b, w ÷ s.b, s.b, h ÷ s.b, c, n)
    return reshape(Transpose(s.crd ? [2, 4, 1, 3, 5, 6] : [2, 4, 5, 1, 3, 6])(parts), w ÷ s.b, h ÷ s.b, c * s.b^2, n)
end

"ONNX's DepthToSpace, the inverse of [`SpaceToDepth`](@ref)."
struct DepthToSpace
    b::Int
    crd::Bool
end

function (d::DepthToSpace)(x)
    w, h, c, n = plane_size(x)
    c % d.b^2 == 0 || throw(DimensionMismatch("$c channels do not divide into blocks of $(d.b)"))
    rest = c ÷ d.b^2
    parts = d.crd ? reshape(x, w, h, d.b, d.b, rest, n) : reshape(x, w, h, rest, d.b, d.b, n)
    return reshape(Transpose(d.crd ? [3, 1, 4, 2, 5, 6] : [4, 1, 5, 2, 3, 6])(parts), w * d.b, h * d.b, rest, n)
end

plane_size(x) = ndims(x) == 4 ? size(x) : throw(DimensionMismatch("4 dimensions are expected, not $(ndims(x))"))
