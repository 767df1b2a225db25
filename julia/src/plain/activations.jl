# Activation functions of one number, under NNlib's names (its src/activations.jl), and softmax.

"""
    @two_vectors

The end of a loop's body: as `@simd ivdep` before the loop, which is then computed by two vectors at a time. By itself, LLVM would take
four, which are 64 numbers with AVX-512. Runs are often shorter, and what is left of them goes one by one.
"""
macro two_vectors()
    return esc(Expr(:loopinfo, Symbol("julia.simdloop"), Symbol("julia.ivdep"), (Symbol("llvm.loop.interleave.count"), 2)))
end

"Apply `σ` in place to the `n` numbers of `y` after `offset`."
@inline function activate!(y, σ::F, offset, n) where {F}
    σ === identity || activate_into!(y, offset, offset, n, σ)
    return nothing
end

"`y[to+i] = σ(y[from+i])` for `i` in `1:n`, where the two are the same numbers or have none in common."
@inline function activate_into!(y, to, from, n, σ::F) where {F}
    @inbounds for i in 1:n
        y[to+i] = σ(y[from+i])
        @two_vectors
    end
    return nothing
end

relu(x) = ifelse(x < 0, zero(x), x)
leakyrelu(x, a=0.01f0) = ifelse(x > 0, x, oftype(x, a) * x)
@inline elu(x, α=1) = ifelse(x >= 0, x, oftype(x, α) * (fast_exp(x) - 1))
@inline celu(x, α=1) = ifelse(x >= 0, x, oftype(x, α) * (fast_exp(x / oftype(x, α)) - 1))
hardsigmoid(x) = ifelse(x < -3, zero(x), ifelse(x > 3, one(x), (x + 3) / 6))
hardswish(x) = x * hardsigmoid(x)
@inline softplus(x) = log1p(fast_exp(-abs(x))) + relu(x)
softsign(x) = x / (1 + abs(x))
@inline mish(x) = x * tanh_fast(softplus(x))
@inline gelu(x) = x / 2 * (1 + tanh_fast(0.7978846f0 * (x + 0.044715f0 * x * x * x)))

@inline sigmoid(x) = 1 / (1 + fast_exp(-x))

"""
    swish(x)

`x * sigmoid(x)` with an error of at most 1.2e-7 times 1 or |x|, whichever is larger. Has no branches, so that loops over it are
vectorised.

Half of an EfficientNet's numbers go through it, so it has fewer multiplications than [`sigmoid`](@ref): e^-x is 2^t, whose whole
part is added to the exponent of the rest. The product `t` is rounded, which is of no account where 2^t is added to 1.
"""
@inline function swish(x::Float32)
    c = ifelse(x < -87.0f0, -87.0f0, x)  # 2^t is finite
    t = c * -1.442695f0
    t = ifelse(t < -126.0f0, -126.0f0, t)  # 2^t is a normal number
    whole = t + 1.2582912f7  # as in fast_exp
    y = evalpoly(t - (whole - 1.2582912f7), (1.0f0, 0.69314697f0, 0.24022241f0, 0.05550734f0, 0.00967153866f0, 0.00132646957f0))
    return c / (1 + reinterpret(Float32, reinterpret(Int32, y) + reinterpret(Int32, whole) << 23))
end

"""
    tanh_fast(x)

`tanh(x)` with a relative error of at most 4e-7. Has no branches, so that loops over it are vectorised.

A rational function, fitted by weighted least squares, for |x| < 9; beyond that, tanh is ±1 in Float32.
"""
@inline function tanh_fast(x::Float32)
    z = min(x * x, 81.0f0)
    p = evalpoly(z, (1.0f0, 0.13381024f0, 0.0034955864f0, 2.0609056f-5, 1.3354629f-8))
    q = evalpoly(z, (1.0f0, 0.4671434f0, 0.025876976f0, 3.2856321f-4, 7.7765441f-7))
    return ifelse(abs(x) >= 9, copysign(one(x), x), x * p / q)
end

"""
    fast_exp(x)

`exp(x)` with a relative error of at most 2.5e-7: 0 below -87.3 and `Inf` above 88.3, where the result is not a normal
Float32. Has no branches, so that loops over it are vectorised.

Computes 2^k * e^r with an integer k and |r| <= log(2) / 2. log(2) is split into two numbers, of which the larger has so
few bits that its product with k is exact. e^r is a polynomial, fitted by weighted least squares.
"""
@inline function fast_exp(x::Float32)
    # The constant is 1.5 * 2^23. A Float32 of that size has no fraction bits, so the addition rounds and leaves k in
    # the low bits.
    whole = muladd(x, 1.442695f0, 1.2582912f7)
    k = whole - 1.2582912f7
    r = muladd(k, 2.1219444f-4, muladd(k, -0.693359375f0, x))
    power_of_two = reinterpret(Float32, reinterpret(Int32, whole) << 23 + reinterpret(Int32, 1.0f0))
    y = power_of_two * evalpoly(r, (1.0f0, 0.9999997f0, 0.49999148f0, 0.16667637f0, 0.041898042f0, 0.008290295f0))
    return ifelse(x < -87.3f0, 0.0f0, ifelse(x > 88.3f0, Inf32, y))
end

"""
    softmax(x; dims = 1)

`exp.(x) ./ sum(exp.(x), dims = dims)` along one dimension, computed without overflow.
"""
function softmax(x::Array{Float32}; dims=1)
    y = acquire(size(x))
    foreach_line(x, dims) do line
        top = line_maximum(x, line)
        total = store_exp!(y, x, line, top)
        @inbounds @simd for i in line
            y[i] /= total
        end
    end
    return y
end

"""
    logsoftmax(x; dims = 1)

`log.(softmax(x; dims = dims))`, computed so that small probabilities stay accurate.
"""
function logsoftmax(x::Array{Float32}; dims=1)
    y = acquire(size(x))
    foreach_line(x, dims) do line
        top = line_maximum(x, line)
        shift = log(store_exp!(y, x, line, top))
        @inbounds @simd for i in line
            y[i] = x[i] - top - shift
        end
    end
    return y
end

"The largest number of `x` at the indices `line`."
@inline function line_maximum(x, line)
    top = -Inf32
    @inbounds @simd for i in line
        top = ifelse(x[i] > top, x[i], top)
    end
    return top
end

# Julia does not vectorise the loop above.
@inline function line_maximum(x, line::UnitRange{Int})
    tops, i = broadcast_lanes(-Inf32, Val(16)), first(line)
    GC.@preserve x while i + 15 <= last(line)
        tops = greater(load_lanes(pointer(x), i - 1, Val(16)), tops)
        i += 16
    end
    top = -Inf32
    for lane in tops
        top = ifelse(lane.value > top, lane.value, top)
    end
    @inbounds for i in i:last(line)
        top = ifelse(x[i] > top, x[i], top)
    end
    return top
end

"Store `exp(x - top)` at the indices `line` of `y`. Return the sum of these numbers."
@inline function store_exp!(y, x, line, top)
    total = 0.0f0
    @inbounds @simd for i in line
        e = fast_exp(x[i] - top)
        y[i] = e
        total += e
    end
    return total
end

"""
    foreach_line(f, x, d)

Call `f` with the linear indices of each line of `x` along dimension `d`, on several threads. They are a `UnitRange` if the
elements are contiguous, and a `StepRange` otherwise, so that Julia compiles a loop without strides for the former.
"""
function foreach_line(f::F, x, d) where {F}
    n, step = size(x, d), stride(x, d)
    parallel_for(length(x) ÷ max(1, n), LINE_COST * length(x)) do _, lines
        for line in lines .- 1
            first = line ÷ step * step * n + line % step + 1
            step == 1 ? f(first:first+n-1) : f(first:step:first+step*(n-1))
        end
    end
    return nothing
end

"The cost of a number of a softmax, in multiplications."
const LINE_COST = 50
