# Vectors of numbers that become vector registers, and what is computed with them.

"`L` numbers: 4, 8 or 16."
const Lanes{L} = NTuple{L,VecElement{Float32}}

# LLVM may fuse a product and a sum (contract).
for L in (4, 8, 16), (name, operation) in ((:add, "fadd"), (:sub, "fsub"), (:mul, "fmul"))
    code = "%3 = $operation contract <$L x float> %0, %1\nret <$L x float> %3"
    @eval @inline $name(a::Lanes{$L}, b::Lanes{$L}) = Base.llvmcall($code, Lanes{$L}, Tuple{Lanes{$L},Lanes{$L}}, a, b)
end
for L in (4, 8, 16)
    # On a processor without such an instruction it is a product and a sum.
    @eval @inline mul_add(a::Lanes{$L}, b::Lanes{$L}, c::Lanes{$L}) =
        ccall($("llvm.fmuladd.v$(L)f32"), llvmcall, Lanes{$L}, (Lanes{$L}, Lanes{$L}, Lanes{$L}), a, b, c)
    # Where one of two numbers is NaN, the second.
    code = "%3 = fcmp ogt <$L x float> %0, %1\n%4 = select <$L x i1> %3, <$L x float> %0, <$L x float> %1\nret <$L x float> %4"
    @eval @inline greater(a::Lanes{$L}, b::Lanes{$L}) = Base.llvmcall($code, Lanes{$L}, Tuple{Lanes{$L},Lanes{$L}}, a, b)
    zeros = join(("i32 0" for _ in 1:L), ", ")
    code = "%2 = insertelement <$L x float> undef, float %0, i32 0\n" *
        "%3 = shufflevector <$L x float> %2, <$L x float> undef, <$L x i32> <$zeros>\nret <$L x float> %3"
    @eval @inline broadcast_lanes(a::Float32, ::Val{$L}) = Base.llvmcall($code, Lanes{$L}, Tuple{Float32}, a)
end

"LLVM's code for a vector of the numbers `order`, from 0, of two vectors that follow each other. They all have as many numbers."
function shuffle_code(order)
    mask, vector = join(("i32 $i" for i in order), ", "), "<$(length(order)) x float>"
    return "%3 = shufflevector $vector %0, $vector %1, <$(length(order)) x i32> <$mask>\nret $vector %3"
end

# Every second number.
for L in (4, 8, 16), (name, first) in ((:evens, 0), (:odds, 1))
    @eval @inline $name(a::Lanes{$L}, b::Lanes{$L}) =
        Base.llvmcall($(shuffle_code(first:2:2L-1)), Lanes{$L}, Tuple{Lanes{$L},Lanes{$L}}, a, b)
end
# low and high do the opposite of evens and odds: they alternate the numbers of two vectors, and are the first and the second half
# of the result.
for (name, order) in ((:low, (0, 8, 1, 9, 2, 10, 3, 11)), (:high, (4, 12, 5, 13, 6, 14, 7, 15)))
    @eval @inline $name(a::Lanes{8}, b::Lanes{8}) = Base.llvmcall($(shuffle_code(order)), Lanes{8}, Tuple{Lanes{8},Lanes{8}}, a, b)
end
# `L` numbers from number `n` on.
for L in (4, 8, 16), n in 0:min(6, L)
    @eval @inline numbers_from(a::Lanes{$L}, b::Lanes{$L}, ::Val{$n}) =
        Base.llvmcall($(shuffle_code(n:n+L-1)), Lanes{$L}, Tuple{Lanes{$L},Lanes{$L}}, a, b)
end
@inline mul(a::Float32, b::Lanes{L}) where {L} = mul(broadcast_lanes(a, Val(L)), b)

# `offset` counts numbers from 0. The caller keeps the array of `p` alive.
@inline load_lanes(p::Ptr{Float32}, offset, ::Val{L}) where {L} = unsafe_load(Ptr{Lanes{L}}(p + 4 * offset))
@inline store_lanes!(p::Ptr{Float32}, offset, a::Lanes{L}) where {L} = unsafe_store!(Ptr{Lanes{L}}(p + 4 * offset), a)

"""
What the matrix products are made for: vectors of `L` numbers, and `N` columns at a time, so that `2N` vectors of sums and a
few more fit into the registers.
"""
struct Processor{L,N} end

"The processor that this process runs on, as a [`Processor`](@ref)."
function find_processor()
    Sys.ARCH === :aarch64 && return Processor{4,12}()
    features = processor_features()
    has(name) = occursin("+$name,", features)
    # What Julia keeps of compiled code is for the processor that this variable names. Most of those have no vectors of 16; a
    # process that finds no code for its own compiles it.
    is_kept = ccall(:jl_generating_output, Cint, ()) == 1
    is_native = !is_kept || get(ENV, "JULIA_CPU_TARGET", "native") in ("", "native")
    return is_native && has("avx512f") && has("avx512vl") ? Processor{16,12}() : has("avx2") && has("fma") ? Processor{8,6}() : Processor{4,6}()
end

"LLVM's list of what the processor can do: names after a + or -, and before a comma. Empty if it cannot be asked."
function processor_features()
    try
        ask = isdefined(Base, :libllvm_path) ?
            Libc.Libdl.dlsym(Libc.Libdl.dlopen(Base.libllvm_path()), :LLVMGetHostCPUFeatures) :
            cglobal(:LLVMGetHostCPUFeatures)
        return string(unsafe_string(ccall(ask, Cstring, ())), ',')
    catch
        return ""
    end
end

"[`find_processor`](@ref) of this process. Set again when the module is loaded, as its code may come from another machine."
const PROCESSOR = Ref{Any}(find_processor())

"""
    transpose_eight!(to, to_step, from, from_step)

Store the eight columns of an 8x8 matrix, whose rows are at `from` and each `from_step` numbers later, `to_step` numbers apart.
"""
@inline function transpose_eight!(to, to_step, from, from_step)
    row(i) = load_lanes(from, i * from_step, Val(8))
    a, b, c, d, e, f, g, h = alternate(alternate(alternate((row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)))))
    store_lanes!(to, 0, a)
    store_lanes!(to, to_step, b)
    store_lanes!(to, 2to_step, c)
    store_lanes!(to, 3to_step, d)
    store_lanes!(to, 4to_step, e)
    store_lanes!(to, 5to_step, f)
    store_lanes!(to, 6to_step, g)
    store_lanes!(to, 7to_step, h)
    return nothing
end
@inline alternate((a, b, c, d, e, f, g, h)) =
    (low(a, e), high(a, e), low(b, f), high(b, f), low(c, g), high(c, g), low(d, h), high(d, h))

"""
    sum_run(x, offset, n)

The sum of the `n` numbers of `x` after `offset`. Julia's own loop adds 64 at a time and what is left one by one: all of a plane of 7x7.
"""
@inline function sum_run(x::Array{Float32}, offset, n)
    a = b = c = d = broadcast_lanes(0.0f0, Val(16))
    i, total = 0, 0.0f0
    GC.@preserve x begin
        p = pointer(x) + 4 * offset
        while i + 63 < n
            a, b = add(a, load_lanes(p, i, Val(16))), add(b, load_lanes(p, i + 16, Val(16)))
            c, d = add(c, load_lanes(p, i + 32, Val(16))), add(d, load_lanes(p, i + 48, Val(16)))
            i += 64
        end
        while i + 15 < n
            a = add(a, load_lanes(p, i, Val(16)))
            i += 16
        end
        for lane in add(add(a, b), add(c, d))
            total += lane.value
        end
        while i < n
            total += unsafe_load(p, i + 1)
            i += 1
        end
    end
    return total
end
