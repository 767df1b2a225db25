# ONNX's functions of one or a few numbers that Julia and Flux do not have in this form. They return NaN outside their
# domain, where Julia's throw. Those with parameters are subtypes of Function, which Flux's layers take as activations.

export Clamp, Composed, HardSigmoid, NaNOutside, Selu, Swish, ThresholdedRelu, ToInteger, fake_quantize

"Limit a number to `low` and `high`. Returns `high` if `low` is larger, as ONNX's Clip."
struct Clamp <: Function
    low::Float32
    high::Float32
end

function (c::Clamp)(x)
    y = ifelse(x < c.low, c.low, x)
    return ifelse(y > c.high, c.high, y)
end

"""
What quantising a number and dequantising it again makes of it: a multiple of `scale`, never -0, as no integer is. `range` limits the
quantised number, without its zero point.
"""
struct FakeQuantize <: Function
    scale::Float32
    range::Clamp
end

@inline (q::FakeQuantize)(x) = muladd(q.range(round(x / q.scale)), q.scale, 0.0f0)

"""
A [`FakeQuantize`](@ref) without a division, which takes longer than all else: the numbers are limited to `range` first, and
multiplied by 1 / `scale`, which is the sum of `inverse` and the much smaller `rest`. So few products differ from the quotient, if
any, that [`fake_quantize`](@ref) finds out whether one of them is rounded to another step.
"""
struct QuickFakeQuantize <: Function
    scale::Float32
    range::Clamp
    inverse::Float32
    rest::Float32
end

function QuickFakeQuantize(q::FakeQuantize)
    exact = 1 / Float64(q.scale)
    inverse = Float32(exact)
    return QuickFakeQuantize(q.scale, Clamp(q.range.low * q.scale, q.range.high * q.scale), inverse, Float32(exact - inverse))
end

@inline function (q::QuickFakeQuantize)(x)
    y = q.range(x)
    return fma(round(fma(y, q.inverse, y * q.rest)), q.scale, 0.0f0)
end

"The most quantised numbers that a [`QuickFakeQuantize`](@ref) has: those of 16 bits."
const MOST_STEPS = 1 << 16

"""
    fake_quantize(scale, low, high)

The [`FakeQuantize`](@ref) with these limits of the quantised number, or the [`QuickFakeQuantize`](@ref), if the processor has an
instruction for `fma` and if that computes the same of every number.

As neither ever decreases, they are the same if they are the same at the ends of the range and around each number at which the
quotient is rounded to the next step.
"""
function fake_quantize(scale, low, high)
    exact = FakeQuantize(scale, Clamp(low, high))
    0x1p-60 < scale < 0x1p60 && 0 < high - low < MOST_STEPS && !(PROCESSOR[] isa Processor{4,6}) || return exact
    quick = QuickFakeQuantize(exact)
    for (x, step) in ((quick.range.low, low), (quick.range.high, high))
        exact(x) == quick(x) == step * scale || return exact
    end
    for step in low:high-1
        x = prevfloat((step + 0.5f0) * scale, 3)
        exact(x) == step * scale && exact(nextfloat(x, 6)) == (step + 1) * scale || return exact
        for i in 0:6
            exact(nextfloat(x, i)) == quick(nextfloat(x, i)) || return exact
        end
    end
    return quick
end

"`f(x)` if `domain(x)` is true, else NaN."
struct NaNOutside{F,D} <: Function
    f::F
    domain::D
end

(p::NaNOutside)(x) = p.domain(x) ? p.f(x) : oftype(float(x), NaN)

square_root(x) = ifelse(x < 0, oftype(float(x), NaN), sqrt(abs(x)))
cube(x) = x * x * x

"ONNX's Pow. The result has the type of the base."
power(x::AbstractFloat, y) = x < 0 && !isinteger(y) ? oftype(x, NaN) : x^oftype(x, y)
power(x::Integer, y) = unsafe_trunc(Int64, power(Float64(x), Float64(y)))

"ONNX's Div. Integers are divided towards zero."
quotient(x, y) = x / y
quotient(x::Integer, y::Integer) = div(x, y)

as_bool(x::Bool) = x
as_bool(x) = x != 0
logical_not(x) = !as_bool(x)
logical_and(x, y) = as_bool(x) & as_bool(y)
logical_or(x, y) = as_bool(x) | as_bool(y)
logical_xor(x, y) = as_bool(x) ⊻ as_bool(y)
select(condition, x, y) = ifelse(as_bool(condition), x, y)

"ONNX's PRelu: `slope * x` below zero, else `x`."
prelu(x, slope) = ifelse(x < 0, slope * x, x)

"ONNX's ThresholdedRelu: `x` above `α`, else zero."
struct ThresholdedRelu <: Function
    α::Float32
end

(t::ThresholdedRelu)(x) = ifelse(x > t.α, x, zero(x))

"ONNX's Selu: `γ * x` above zero, else `γ * α * (exp(x) - 1)`."
struct Selu <: Function
    α::Float32
    γ::Float32
end

(s::Selu)(x) = s.γ * ifelse(x > 0, x, s.α * expm1(x))

"`outer` of `inner`, as `∘`, whose calls of more than one argument are not vectorised in a loop."
struct Composed{F,G} <: Function
    outer::F
    inner::G
end

@inline (c::Composed)(a) = c.outer(c.inner(a))
@inline (c::Composed)(a, b) = c.outer(c.inner(a, b))
@inline (c::Composed)(a, b, d) = c.outer(c.inner(a, b, d))

"ONNX's HardSigmoid: `α * x + β`, limited to 0 and 1."
struct HardSigmoid <: Function
    α::Float32
    β::Float32
end

(h::HardSigmoid)(x) = Clamp(0, 1)(muladd(h.α, x, h.β))

"ONNX's Swish: `x * sigmoid(α * x)`, with the backend's sigmoid."
struct Swish{S} <: Function
    sigmoid::S
    α::Float32
end

@inline (s::Swish)(x) = x * s.sigmoid(s.α * x)

"""
    erf(x)

The error function with a relative error of at most 4e-7. Has no branches, so that loops over it are vectorised.

A rational function, fitted by weighted least squares, for |x| < 4; beyond that, erf is ±1 in Float32.
"""
@inline function erf(x::Float32)
    z = min(x * x, 16.0f0)
    p = evalpoly(z, (1.1283791f0, 0.20712305f0, 0.05152458f0, 0.0039904816f0, 1.4728463f-4, -1.942314f-6, 1.9111085f-8))
    q = evalpoly(z, (1.0f0, 0.51688927f0, 0.11796983f0, 0.01495788f0, 0.0010210918f0))
    return ifelse(abs(x) >= 4, copysign(1.0f0, x), x * p / q)
end

"GELU with the error function, PyTorch's default. Flux's `gelu` is the approximation with tanh."
@inline gelu_erf(x) = 0.5f0 * x * (1 + erf(x * 0.70710677f0))

"ONNX's Cast to the integer type `T`. The result is an Int64, the only integer type in this package."
struct ToInteger{T} <: Function end

(::ToInteger{T})(x::AbstractFloat) where {T} = Int64(unsafe_trunc(Int64, x) % T)
(::ToInteger{T})(x::Integer) where {T} = Int64(x % T)
